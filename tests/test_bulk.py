from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from support.models import new_definition, required_of_an_event

from agentobs import (
    AgentTransformationEvent,
    DatabaseSettings,
    create_engine,
    create_session_factory,
    migrations,
)
from agentobs.bulk import copy_rows
from agentobs.errors import InvalidDataError, InvalidValueError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

COUNT = select(func.count()).select_from(AgentTransformationEvent)


def rows(count: int, **values: Any) -> list[dict[str, Any]]:
    return [required_of_an_event() | values for _ in range(count)]


async def test_rows_arrive_with_every_type_that_they_have(session: AsyncSession) -> None:
    key, began = uuid4(), datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
    row = required_of_an_event() | {
        "id": key,
        "context_snapshot": {"big": 2**70, "list": [1, None, "ü"]},
        "context_keys": ["task", "plan"],
        "context_size_bytes": 17,
        "routing_confidence": Decimal("0.8125"),
        "success": True,
        "started_at": began,
    }

    assert await copy_rows(session, AgentTransformationEvent, [row]) == 1

    found = await session.get_one(AgentTransformationEvent, key)
    assert {name: getattr(found, name) for name in row} == row


async def test_columns_that_are_left_out_get_the_defaults_of_the_database(
    session: AsyncSession,
) -> None:
    await copy_rows(session, AgentTransformationEvent, rows(2))

    found = (await session.scalars(select(AgentTransformationEvent))).all()
    assert len({event.id for event in found}) == 2
    assert all(event.started_at.tzinfo is not None for event in found)


async def test_no_rows_are_no_copy(session: AsyncSession) -> None:
    assert await copy_rows(session, AgentTransformationEvent, []) == 0


async def test_a_copy_as_the_first_act_of_a_session_is_rolled_back_with_it(
    agentobs_engine: AsyncEngine,
) -> None:
    sessions = create_session_factory(agentobs_engine)
    async with sessions() as session:
        await copy_rows(session, AgentTransformationEvent, rows(3))
        await session.rollback()
    async with agentobs_engine.connect() as connection:
        await copy_rows(connection, AgentTransformationEvent, rows(3))

    async with sessions() as session:
        assert await session.scalar(COUNT) == 0


async def test_a_copy_is_committed_with_the_rest_of_its_transaction(
    agentobs_engine: AsyncEngine,
) -> None:
    sessions = create_session_factory(agentobs_engine)
    async with sessions.begin() as session:
        session.add(AgentTransformationEvent(**required_of_an_event()))
        await copy_rows(session, AgentTransformationEvent, rows(3))

    async with sessions() as session:
        assert await session.scalar(COUNT) == 4


async def test_what_the_session_has_to_write_is_written_before_the_copy(
    session: AsyncSession,
) -> None:
    definition = new_definition(id=uuid4())
    session.add(definition)

    await copy_rows(session, AgentTransformationEvent, rows(2, agent_definition_id=definition.id))

    assert await session.scalar(COUNT) == 2


async def test_a_copy_goes_to_the_schema_of_choice(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    settings = agentobs_empty_database.model_copy(update={"schema_name": 'The "Host"'})
    await migrations.upgrade(settings=settings)
    engine = create_engine(settings)
    async with engine.begin() as connection:
        await copy_rows(connection, AgentTransformationEvent, rows(2))
        counted = text('SELECT count(*) FROM "The ""Host""".agent_transformation_events')
        assert await connection.scalar(counted) == 2
    await engine.dispose()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"started_at": datetime(2026, 11, 25)}, "started_at must have a time zone"),  # noqa: DTZ001
        ({"context_snapshot": {"x": float("nan")}}, "context_snapshot must hold no NaN"),
        ({"success": "yes"}, "success is of another type"),
        ({"no_such": 1}, "no_such is no column"),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_by_its_column(
    session: AsyncSession, values: dict[str, Any], rule: str
) -> None:
    with pytest.raises(InvalidValueError, match=rule):
        await copy_rows(session, AgentTransformationEvent, rows(1, **values))


async def test_rows_of_different_columns_are_refused(session: AsyncSession) -> None:
    other = required_of_an_event() | {"success": True}
    renamed = {("source_agent" if k == "target_agent" else k): v for k, v in rows(1)[0].items()}

    for second in (other, renamed):
        with pytest.raises(InvalidValueError, match=r"another set of columns|target_agent"):
            await copy_rows(session, AgentTransformationEvent, [*rows(1), second])
    assert await session.scalar(COUNT) == 0


async def test_what_the_driver_can_not_encode_leaves_nothing_behind(
    agentobs_engine: AsyncEngine,
) -> None:
    sessions = create_session_factory(agentobs_engine)
    broken = [*rows(2, context_size_bytes=1), *rows(1, context_size_bytes="many")]
    async with sessions() as session:
        with pytest.raises(InvalidDataError):
            await copy_rows(session, AgentTransformationEvent, broken)

    async with sessions() as session:
        assert await session.scalar(COUNT) == 0
