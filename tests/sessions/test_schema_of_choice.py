from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import selectinload
from support.models import new_definition, new_event

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    DatabaseSettings,
    create_engine,
    create_session_factory,
    migrations,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

SCHEMA = 'Host "Observability"'
QUOTED = '"Host ""Observability"""'


@pytest.fixture
async def settings_with_schema(agentobs_empty_database: DatabaseSettings) -> DatabaseSettings:
    """Return the settings of a database that has the tables in the schema and nowhere else."""
    settings = agentobs_empty_database.model_copy(update={"schema_name": SCHEMA})
    await migrations.upgrade(settings=settings)
    return settings


@pytest.fixture
async def engine(settings_with_schema: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings_with_schema)
    yield engine
    await engine.dispose()


async def test_objects_are_written_to_the_schema_and_read_from_it(engine: AsyncEngine) -> None:
    sessions = create_session_factory(engine)
    async with sessions() as session, session.begin():
        definition = new_definition(events=[new_event(), new_event()])
        session.add(definition)
        await session.flush()
        definition.domain = "debugging"
    async with sessions() as session:
        found = await session.get_one(
            AgentDefinition, definition.id, options=[selectinload(AgentDefinition.events)]
        )
        in_schema = await session.scalar(
            text(f"SELECT count(*) FROM {QUOTED}.agent_transformation_events")
        )
        in_public = await session.scalar(text("SELECT to_regclass('public.agent_definitions')"))

    assert found.domain == "debugging"
    assert len(found.events) == in_schema == 2
    assert in_public is None


async def test_core_statements_go_to_the_schema_too(engine: AsyncEngine) -> None:
    async with create_session_factory(engine)() as session:
        session.add_all([new_event(), new_event()])
        await session.flush()
        await session.execute(update(AgentTransformationEvent).values(success=True))
        succeeded = select(func.count()).where(AgentTransformationEvent.success.is_(True))

        assert await session.scalar(succeeded) == 2
        await session.execute(delete(AgentTransformationEvent))
        assert await session.scalar(succeeded) == 0


async def test_execution_options_of_the_host_do_not_take_the_schema_away(
    settings_with_schema: DatabaseSettings,
) -> None:
    engine = create_engine(settings_with_schema, execution_options={"logging_token": "router"})
    async with create_session_factory(engine)() as session:
        assert await session.scalar(select(func.count()).select_from(AgentDefinition)) == 0
    await engine.dispose()


async def test_without_a_schema_the_connections_own_is_used(
    settings_with_schema: DatabaseSettings,
) -> None:
    plain = settings_with_schema.model_copy(update={"schema_name": None})
    engine = create_engine(plain, connect_args={"server_settings": {"search_path": QUOTED}})
    async with create_session_factory(engine)() as session:
        assert await session.scalar(select(func.count()).select_from(AgentDefinition)) == 0
    await engine.dispose()
