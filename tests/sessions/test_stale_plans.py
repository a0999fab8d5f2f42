"""A migration changes a table while connections have statements on it prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.pools import all_in_use, changed, onlooker
from support.relay import relay

from agentobs import Database
from agentobs.errors import SchemaMismatchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

READ = text("SELECT * FROM things ORDER BY number")
WRITE = text("INSERT INTO things (number, name) VALUES (2, 'b') RETURNING *")
CHANGES = {
    "added": "ALTER TABLE things ADD COLUMN extra integer DEFAULT 7",
    "dropped": "ALTER TABLE things DROP COLUMN size",
    "typed": "ALTER TABLE things ALTER COLUMN size TYPE text",
}
AFTER = {"added": (1, "a", 5, 7), "dropped": (1, "a"), "typed": (1, "a", "5")}
each_change = pytest.mark.parametrize("change", CHANGES)


@pytest_asyncio.fixture
async def eye(module_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(module_database) as found:
        await found.execute("DROP TABLE IF EXISTS things")
        await found.execute("CREATE TABLE things (number integer, name text, size integer)")
        await found.execute("INSERT INTO things VALUES (1, 'a', 5)")
        yield found


@pytest_asyncio.fixture
async def db(module_database: DatabaseSettings) -> AsyncIterator[Database]:
    """Run a Database whose only connections are three, so that a test meets them again."""
    settings = changed(module_database, pool_size=3, pool_min_size=3)
    async with Database(settings) as running:
        yield running
        assert running.pool_stats().opened == 3, "no connection was given up for its plans"


@each_change
async def test_as_the_first_of_its_transaction_a_stale_statement_is_run_again(
    eye: Onlooker, db: Database, change: str
) -> None:
    await _read_on_all(db)
    await eye.execute(CHANGES[change])

    async with all_in_use(db, 3) as connections:
        for each in connections:
            assert await _rows(each) == [AFTER[change]]
            assert await _rows(each) == [AFTER[change]]
            await each.commit()
            assert await _rows(each) == [AFTER[change]]


@each_change
async def test_in_autocommit_a_stale_statement_is_run_again(
    eye: Onlooker, db: Database, change: str
) -> None:
    await _read_on_all(db)
    await eye.execute(CHANGES[change])

    async with all_in_use(db, 3) as connections:
        for each in connections:
            await each.execution_options(isolation_level="AUTOCOMMIT")
            assert await _rows(each) == [AFTER[change]]
            assert await _rows(each) == [AFTER[change]]


@pytest.mark.parametrize("autocommit", [False, True])
async def test_in_a_read_session_a_stale_statement_is_run_again(
    eye: Onlooker, db: Database, *, autocommit: bool
) -> None:
    async with db.read_session(autocommit=autocommit) as session:
        await session.execute(READ)
    await eye.execute(CHANGES["added"])

    async with db.read_session(autocommit=autocommit) as session:
        assert (await session.execute(READ)).one() == AFTER["added"]


async def test_a_statement_that_writes_is_run_once(eye: Onlooker, db: Database) -> None:
    async with all_in_use(db, 3) as connections:
        for each in connections:
            await each.execute(WRITE)
            await each.rollback()
    await eye.execute(CHANGES["added"])
    async with db.begin() as session:
        row = (await session.execute(WRITE)).one()

    assert row == (2, "b", None, 7)
    assert await eye.scalar("SELECT count(*) FROM things") == 2


async def test_a_later_statement_of_a_transaction_tells_to_run_that_again(
    eye: Onlooker, db: Database
) -> None:
    await _read_on_all(db)
    async with all_in_use(db, 3) as connections:
        for each in connections:
            await each.execute(text("SELECT 1"))
        await eye.execute(CHANGES["added"])
        with pytest.raises(SchemaMismatchError, match="run it again from its beginning") as caught:
            await connections[0].execute(READ)
        assert isinstance(caught.value, DBAPIError)
        assert not caught.value.connection_invalidated

        await connections[0].rollback()
        for each in connections:
            assert await _rows(each) == [AFTER["added"]]


async def test_what_the_transaction_did_before_is_not_lost_silently(
    eye: Onlooker, db: Database
) -> None:
    await _read_on_all(db)

    async def write_and_read(session: AsyncSession) -> Any:
        await session.execute(WRITE)
        return len((await session.execute(READ)).all())

    await eye.execute(CHANGES["added"])
    # WRITE itself is new to each connection: only READ is stale.
    with pytest.raises(SchemaMismatchError, match="the schema changed within the transaction"):
        async with db.begin() as session:
            await write_and_read(session)
    assert await eye.scalar("SELECT count(*) FROM things") == 1

    async with db.begin() as session:
        assert await write_and_read(session) == 2


async def test_one_failure_renews_the_plans_of_all_connections(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with relay(module_database) as wire:
        settings = changed(wire.settings, pool_size=3, pool_min_size=3)
        async with Database(settings) as db:
            await _read_on_all(db)
            await eye.execute(CHANGES["added"])
            wire.forget()
            await _read_on_all(db)

            # One of them met the stale plan, and ran the statement twice.
            assert wire.executed.count(str(READ)) == 3 + 1


async def _rows(connection: AsyncConnection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await connection.execute(READ)]


async def _read_on_all(db: Database) -> None:
    async with all_in_use(db, 3) as connections:
        for each in connections:
            await _rows(each)
