from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, func, select, text
from support.models import new_definition, required_of_an_event
from support.pools import onlooker, pid_of
from support.recorder_rows import Event, records_of
from support.shell import connect

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    DatabaseSettings,
    RouterPerformanceMetric,
    create_engine,
    create_session_factory,
    migrations,
)
from agentobs.bulk import copy_lines_to, copy_records, copy_rows
from agentobs.errors import ConnectionFailedError, InvalidDataError, InvalidValueError
from agentobs.keys import EPOCH, instant_of, uuid7_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

COUNT = select(func.count()).select_from(AgentTransformationEvent)
LONG_AGO = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)


def rows(count: int, **values: Any) -> list[dict[str, Any]]:
    return [required_of_an_event() | values for _ in range(count)]


@contextmanager
def statements_beside(connection: AsyncConnection) -> Iterator[list[str]]:
    """Collect what SQLAlchemy sends in the block; a COPY goes past it."""
    sent: list[str] = []

    def collect(*arguments: Any) -> None:
        sent.append(arguments[2])

    event.listen(connection.sync_connection, "before_cursor_execute", collect)
    try:
        yield sent
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", collect)


async def stored_events(session: AsyncSession) -> list[tuple[UUID, datetime]]:
    """Return key and instant of every event, by the order of keys."""
    table = AgentTransformationEvent
    found = await session.execute(select(table.id, table.started_at).order_by(table.id))
    return [(key, instant) for key, instant in found]


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


async def test_rows_without_key_and_instant_have_both_from_the_same_now(
    session: AsyncSession,
) -> None:
    await copy_rows(session, AgentTransformationEvent, rows(2))

    now = await session.scalar(select(func.now()))
    for key, instant in await stored_events(session):
        assert instant_of(key) == instant == now


async def test_the_key_of_a_row_is_made_of_its_instant(session: AsyncSession) -> None:
    instants = [LONG_AGO + timedelta(days=number) for number in range(3)]
    given = [row for instant in instants for row in rows(1, started_at=instant)]

    await copy_rows(session, AgentTransformationEvent, given)

    stored = await stored_events(session)
    assert [instant for _, instant in stored] == instants
    assert [instant_of(key) for key, _ in stored] == instants
    assert all("id" not in row for row in given)


@pytest.mark.parametrize("form", [UUID, str], ids=["uuid", "text"])
async def test_the_instant_of_a_row_is_the_one_that_its_key_holds(
    session: AsyncSession, form: Callable[[str], object]
) -> None:
    keys = [uuid7_at(LONG_AGO + timedelta(days=number)) for number in range(3)]
    given = [row for key in keys for row in rows(1, id=form(str(key)))]

    await copy_rows(session, AgentTransformationEvent, given)

    assert await stored_events(session) == [(key, instant_of(key)) for key in keys]


async def test_a_key_that_holds_no_instant_is_kept_and_its_row_is_of_now(
    session: AsyncSession,
) -> None:
    foreign = uuid4()

    await copy_rows(session, AgentTransformationEvent, rows(1, id=foreign))

    [(key, instant)] = await stored_events(session)
    assert key == foreign
    assert abs(instant - datetime.now(UTC)) < timedelta(minutes=5)


async def test_a_key_and_an_instant_that_are_both_given_are_both_kept(
    session: AsyncSession,
) -> None:
    key, instant = uuid7_at(LONG_AGO), LONG_AGO + timedelta(days=1)

    await copy_rows(session, AgentTransformationEvent, rows(1, id=key, started_at=instant))

    assert await stored_events(session) == [(key, instant)]


async def test_the_key_of_a_metric_is_made_of_when_it_was_measured(session: AsyncSession) -> None:
    row = {"metric_type": "cache_hit", "measured_at": LONG_AGO}

    await copy_rows(session, RouterPerformanceMetric, [row])

    key = await session.scalar(select(RouterPerformanceMetric.id))
    assert key is not None
    assert instant_of(key) == LONG_AGO


async def test_the_key_of_a_definition_is_made_of_nothing(session: AsyncSession) -> None:
    row = {"agent_name": "a", "agent_type": "b", "yaml_config": {}, "created_at": LONG_AGO}

    await copy_rows(session, AgentDefinition, [row])

    key = await session.scalar(select(AgentDefinition.id))
    assert key is not None
    assert key.version == 4


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
        ({"started_at": EPOCH - timedelta(days=1)}, "started_at must not lie before 1970"),
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


@pytest.mark.parametrize("first", ["id", "started_at"])
async def test_a_key_or_an_instant_that_only_a_later_row_has_is_not_overwritten(
    session: AsyncSession, first: str
) -> None:
    both = {"id": uuid7_at(EPOCH), "started_at": EPOCH}
    lacking = required_of_an_event() | {first: both[first]}

    with pytest.raises(InvalidValueError, match="another set of columns"):
        await copy_rows(session, AgentTransformationEvent, [lacking, *rows(1, **both)])


async def test_a_copy_in_autocommit_is_a_transaction_by_itself_in_one_round_trip(
    agentobs_database: DatabaseSettings, agentobs_engine: AsyncEngine
) -> None:
    async with connect(agentobs_database) as connection, agentobs_engine.connect() as other:
        with statements_beside(connection) as sent:
            await copy_records(connection, Event, *records_of(Event, 3))

        assert sent == []
        assert await other.scalar(COUNT) == 3


async def test_a_copy_in_a_transaction_that_has_begun_sends_nothing_else(
    session: AsyncSession,
) -> None:
    connection = await session.connection()
    await connection.execute(COUNT)

    with statements_beside(connection) as sent:
        await copy_records(connection, Event, *records_of(Event, 3))

    assert sent == []


async def test_records_that_are_copied_in_slices_are_one_statement(
    agentobs_database: DatabaseSettings,
) -> None:
    columns, records = records_of(Event, 7)
    async with connect(agentobs_database) as connection:
        broken = [*records, tuple("x" for _ in columns)]
        with pytest.raises(InvalidDataError):
            await copy_records(connection, Event, columns, broken, slice_rows=2)
        assert await connection.scalar(COUNT) == 0

        copied = await copy_records(connection, Event, columns, records, slice_rows=2)
        assert copied == await connection.scalar(COUNT) == 7


async def test_a_copy_after_its_connection_has_ended_says_so_and_the_next_one_has_another(
    agentobs_database: DatabaseSettings,
) -> None:
    async with connect(agentobs_database) as connection, onlooker(agentobs_database) as eye:
        await eye.terminate(*await eye.pids())

        with pytest.raises(ConnectionFailedError):
            await copy_records(connection, Event, *records_of(Event, 3))
        await connection.rollback()
        assert await copy_records(connection, Event, *records_of(Event, 3)) == 3


async def test_a_copy_whose_connection_ends_meanwhile_says_so_and_the_next_one_has_another(
    agentobs_database: DatabaseSettings,
) -> None:
    async with connect(agentobs_database) as connection, onlooker(agentobs_database) as eye:
        # Of a backend that begins a statement at that moment, the statistics may say nothing.
        pid = await pid_of(connection)

        async def lines() -> AsyncIterator[bytes]:
            await eye.terminate(pid)
            yield b"x\t11111111-1111-4111-8111-111111111111\ta\n"

        columns = ["event_type", "correlation_id", "target_agent"]
        with pytest.raises(ConnectionFailedError):
            await copy_lines_to(connection, Event.__tablename__, columns, lines(), schema="public")
        await connection.rollback()
        assert await copy_records(connection, Event, *records_of(Event, 3)) == 3


async def test_a_connection_goes_on_when_who_gives_the_rows_has_failed(
    agentobs_database: DatabaseSettings,
) -> None:
    async with connect(agentobs_database) as connection:
        pid = await pid_of(connection)

        async def lines() -> AsyncIterator[bytes]:
            raise ConnectionResetError
            yield b""

        with pytest.raises(ConnectionFailedError):
            await copy_lines_to(
                connection, Event.__tablename__, ["event_type"], lines(), schema="public"
            )
        await connection.rollback()
        assert await pid_of(connection) == pid


async def test_between_slices_the_other_tasks_of_the_loop_go_on(session: AsyncSession) -> None:
    connection = await session.connection()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count_turns())
    columns, records = records_of(Event, 300)
    await copy_records(connection, Event, columns, records, slice_rows=1)
    task.cancel()

    assert turns >= 299
