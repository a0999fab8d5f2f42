from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, literal, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.types import Text, TypeDecorator
from support.leaks import nothing_leaks
from support.models import CANARY, new_definition, new_event, required_of_an_event

from agentobs import (
    AgentTransformationEvent,
    DatabaseSettings,
    create_engine,
    create_session_factory,
)
from agentobs.bulk import copy_rows
from agentobs.errors import (
    AgentobsError,
    ConstraintError,
    DatabaseError,
    InvalidDataError,
    InvalidValueError,
    SchemaMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

# The sixtieth of the rows is no number: by then the first ones have arrived.
STREAMED = text(
    "SELECT CAST(CASE WHEN i = 60 THEN :canary ELSE '1' END AS integer) "
    "FROM generate_series(1, 100) AS i"
)


async def _iterate(session: AsyncSession) -> None:
    async for _ in await session.stream(STREAMED, {"canary": CANARY}):
        pass


async def _iterate_scalars(session: AsyncSession) -> None:
    async for _ in await session.stream_scalars(STREAMED, {"canary": CANARY}):
        pass


async def _fetch_all(session: AsyncSession) -> None:
    await (await session.stream(STREAMED, {"canary": CANARY})).all()


async def _in_parts(session: AsyncSession) -> None:
    options = {"yield_per": 10}
    async for _ in await session.stream(STREAMED, {"canary": CANARY}, execution_options=options):
        pass


@pytest.mark.parametrize("read", [_iterate, _iterate_scalars, _fetch_all, _in_parts])
async def test_a_row_that_fails_while_it_is_streamed_is_not_shown(
    session: AsyncSession,
    read: Callable[[AsyncSession], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with nothing_leaks(caplog) as caught:
        await read(session)

    assert isinstance(caught.error, InvalidDataError)
    assert isinstance(caught.error, DBAPIError)
    assert caught.error.sqlstate == "22P02"


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT to_tsquery('simple', :canary || ' &')", "42601"),
        ("SELECT CAST(CAST(:canary AS text) AS regclass)", "42P01"),
        ("SELECT nextval(CAST(:canary AS text))", "42P01"),
        ("SELECT CAST(CAST(:canary AS text) AS regtype)", "42704"),
        ("SELECT CAST(CAST(:canary AS text) AS regnamespace)", "3F000"),
        ("SELECT set_config('timezone', :canary, true)", "22023"),
        ("SELECT set_config(:canary, 'on', true)", "42704"),
    ],
)
async def test_a_value_that_stands_for_a_name_is_not_shown(
    session: AsyncSession, statement: str, sqlstate: str, caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog) as caught:
        await session.execute(text(statement), {"canary": CANARY})

    assert isinstance(caught.error, DatabaseError)
    assert caught.error.sqlstate in {sqlstate, "42601", "42602"}


@pytest.mark.parametrize("sqlstate", ["P0001", "23514", "42501", "22001"])
async def test_what_a_function_of_the_host_says_is_not_shown_whatever_it_calls_it(
    session: AsyncSession, sqlstate: str, caplog: pytest.LogCaptureFixture
) -> None:
    remember = "SELECT set_config('host.word', :canary, true)"
    await session.execute(text(remember), {"canary": CANARY})
    refuse = (
        "DO $$ BEGIN RAISE EXCEPTION 'I refuse %', current_setting('host.word') "
        f"USING ERRCODE = '{sqlstate}'; END $$"
    )

    with nothing_leaks(caplog) as caught:
        await session.execute(text(refuse))

    assert isinstance(caught.error, DatabaseError)
    assert caught.error.sqlstate == sqlstate


async def test_a_text_that_is_too_long_is_told_with_its_column_type(session: AsyncSession) -> None:
    row = required_of_an_event() | {"target_agent": "x" * 300}

    with pytest.raises(InvalidDataError, match=r"too long for type character varying\(255\)"):
        await session.execute(insert(AgentTransformationEvent).values(row))


async def test_a_name_that_the_statement_has_is_told(session: AsyncSession) -> None:
    with pytest.raises(SchemaMismatchError, match='relation "agent_definition" does not exist'):
        await session.execute(text("SELECT * FROM agent_definition"))
    await session.rollback()
    with pytest.raises(SchemaMismatchError, match="agentobs db upgrade"):
        await session.execute(text("SELECT owner FROM agent_definitions"))


async def test_a_syntax_error_is_told_by_its_place(session: AsyncSession) -> None:
    with pytest.raises(DatabaseError, match="syntax error at character 13"):
        await session.execute(text("SELECT FROM WHERE"))


async def test_an_error_of_copy_is_that_of_sqlalchemy_too(session: AsyncSession) -> None:
    row = required_of_an_event() | {"routing_confidence": 2}

    with pytest.raises(IntegrityError) as caught:
        await copy_rows(session, AgentTransformationEvent, [row])

    assert isinstance(caught.value, ConstraintError)
    assert CANARY not in str(caught.value.__context__)


async def test_the_log_shows_no_row_that_is_read(
    agentobs_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")
    engine = create_engine(agentobs_database)
    async with create_session_factory(engine)() as session:
        session.add_all([new_event(user_request=CANARY), new_definition(domain=CANARY)])
        await session.flush()
        read = select(AgentTransformationEvent.user_request)
        assert (await session.scalars(read)).all() == [CANARY]
    async with engine.execution_options(logging_token="host").connect() as connection:  # noqa: S106
        assert await connection.scalar(select(literal(CANARY))) == CANARY
    await engine.dispose()

    assert "SELECT agent_transformation_events.user_request" in caplog.text
    assert CANARY not in caplog.text


class Picky(TypeDecorator[str]):
    """A type of the host that quotes what it refuses."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        del dialect
        raise LookupError(f"no such word: {value}")


async def test_what_a_type_of_the_host_refuses_is_not_shown(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog) as caught:
        await session.execute(select(literal(CANARY, Picky())))

    assert isinstance(caught.error, InvalidValueError)
    assert "LookupError" in str(caught.error)


async def test_an_error_while_a_flush_is_caused_by_a_query_is_the_same(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    session.add_all([new_definition(agent_name=CANARY), new_definition(agent_name=CANARY)])

    with nothing_leaks(caplog) as caught:
        await session.scalar(select(func.count()).select_from(AgentTransformationEvent))

    assert isinstance(caught.error, ConstraintError)


async def test_a_host_name_that_is_none_is_told_like_a_server_that_is_away() -> None:
    for host in ("a..b", "x" * 70):
        engine = create_engine(DatabaseSettings(host=host, user="u", database="d"))
        with pytest.raises(AgentobsError, match="can't connect to postgresql://u@"):
            await engine.connect()
        await engine.dispose()


async def test_an_argument_that_is_none_of_its_type_is_told_by_its_number(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    statement = (
        "INSERT INTO agent_definitions (agent_name, agent_type, yaml_config) "
        "VALUES (:name, 't', :config)"
    )

    with nothing_leaks(caplog) as caught:
        await session.execute(text(statement), {"name": CANARY, "config": {"name": CANARY}})

    assert isinstance(caught.error, InvalidDataError)
    assert "argument $2" in str(caught.error)


async def test_a_partition_is_told_as_the_table_that_the_service_knows(
    session: AsyncSession,
) -> None:
    event = new_event()
    session.add(event)
    await session.flush()

    with pytest.raises(ConstraintError) as caught:
        await session.execute(
            insert(AgentTransformationEvent).values(id=event.id, **required_of_an_event())
        )

    assert caught.value.table == "agent_transformation_events"
    assert caught.value.constraint == "agent_transformation_events_pkey"
