from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import BindParameter, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError
from support.models import CANARY, new_definition, new_event, required_of_an_event

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    DatabaseSettings,
    create_engine,
    create_session_factory,
)
from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

APPLICATION_NAME = text(
    "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)


async def test_the_connections_of_a_service_are_seen_as_agentobs(
    agentobs_engine: AsyncEngine,
) -> None:
    async with agentobs_engine.connect() as connection:
        assert await connection.scalar(APPLICATION_NAME) == "agentobs"


async def test_connection_arguments_of_the_host_stand_beside_ours(
    agentobs_database: DatabaseSettings,
) -> None:
    engine = create_engine(agentobs_database, connect_args={"command_timeout": 5})
    async with engine.connect() as connection:
        assert await connection.scalar(APPLICATION_NAME) == "agentobs"
    await engine.dispose()


async def test_an_option_of_the_host_wins(agentobs_database: DatabaseSettings) -> None:
    engine = create_engine(
        agentobs_database,
        isolation_level="SERIALIZABLE",
        connect_args={"server_settings": {"application_name": "router"}},
    )
    async with engine.connect() as connection:
        assert await connection.scalar(APPLICATION_NAME) == "router"
        assert await connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    await engine.dispose()


async def test_without_settings_the_environment_is_read(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agentobs_database.database_url is not None
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", agentobs_database.database_url.get_secret_value())
    engine = create_engine()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_database()")) == engine.url.database
    await engine.dispose()


def test_without_a_url_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTOBS_DATABASE_URL", raising=False)

    with pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL is not set"):
        create_engine()


async def test_a_session_sees_what_it_committed_without_loading_it_again(
    agentobs_engine: AsyncEngine,
) -> None:
    sessions = create_session_factory(agentobs_engine)
    async with sessions() as session, session.begin():
        definition = new_definition()
        session.add(definition)
    async with sessions() as session:
        found = await session.get_one(AgentDefinition, definition.id)

    assert found is not definition
    assert found.agent_name == definition.agent_name


async def test_what_a_session_did_not_commit_is_gone(agentobs_engine: AsyncEngine) -> None:
    sessions = create_session_factory(agentobs_engine)
    async with sessions() as session:
        session.add(new_definition())
        await session.flush()
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(AgentDefinition)) == 0


async def test_a_failing_orm_statement_shows_no_parameter(agentobs_engine: AsyncEngine) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        session.add(
            new_event(
                agent_definition_id=uuid4(),
                user_request=CANARY,
                target_agent=CANARY,
                context_keys=[CANARY],
                context_snapshot={CANARY: [CANARY]},
            )
        )
        with pytest.raises(IntegrityError) as caught:
            await session.flush()

    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [literal(CANARY), literal({"key": CANARY}, JSONB)])
async def test_a_failing_core_statement_shows_no_parameter(
    agentobs_engine: AsyncEngine, value: BindParameter[Any]
) -> None:
    async with agentobs_engine.connect() as connection:
        with pytest.raises(DBAPIError, match="division by zero") as caught:
            await connection.execute(select(value, literal(1) / func.length("")))

    assert CANARY not in "".join(traceback.format_exception(caught.value))


async def test_a_document_that_json_can_not_hold_is_refused_in_core_and_not_shown(
    agentobs_engine: AsyncEngine,
) -> None:
    row = required_of_an_event() | {"context_snapshot": {CANARY: float("nan")}}

    async with agentobs_engine.connect() as connection:
        with pytest.raises(Exception, match="no NaN or infinity") as caught:
            await connection.execute(insert(AgentTransformationEvent), [row])

    assert CANARY not in "".join(traceback.format_exception(caught.value))


async def test_the_log_of_statements_shows_no_parameter(
    agentobs_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")
    engine = create_engine(agentobs_database)
    async with create_session_factory(engine)() as session:
        session.add(new_event(user_request=CANARY, context_snapshot={"key": CANARY}))
        await session.flush()
    await engine.dispose()

    assert "INSERT INTO agent_transformation_events" in caplog.text
    assert CANARY not in caplog.text
