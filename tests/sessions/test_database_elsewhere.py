"""A Database in an event loop or a process that is not its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.pools import AT_ONCE_SECONDS, all_in_use, pid_of, pid_of_next, running
from support.shell import environment

from agentobs import Database, create_engine
from agentobs.errors import EventLoopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


async def _session(db: Database) -> None:
    async with db.session() as session:
        await session.execute(text("SELECT 1"))


async def _begin(db: Database) -> None:
    async with db.begin() as session:
        await session.execute(text("SELECT 1"))


async def _read_session(db: Database) -> None:
    async with db.read_session() as session:
        await session.execute(text("SELECT 1"))


async def _block(db: Database) -> None:
    async with db:
        pass


USES: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "connection": pid_of_next,
    "session": _session,
    "begin": _begin,
    "read_session": _read_session,
    "start": Database.start,
    "stop": Database.stop,
    "block": _block,
}

PARENT_AND_CHILD = """
import asyncio, os, sys
from sqlalchemy import text
from agentobs import close_database, get_database
from agentobs.errors import EventLoopError

async def pid_of(connection):
    return await connection.scalar(text("SELECT pg_backend_pid()"))

async def pid_of_next(database):
    async with database.connection() as connection:
        return await pid_of(connection)

async def read(database):
    async with database.read_session() as session:
        await session.execute(text("SELECT 1"))

async def child(inherited):
    for use in (pid_of_next, read, type(inherited).start, type(inherited).stop):
        try:
            await use(inherited)
        except EventLoopError as error:
            assert "before the process forked" in str(error), error
        else:
            raise AssertionError(f"{use} worked in the child")
    own = await get_database()
    assert own is not inherited
    pid = await pid_of_next(own)
    await close_database()
    return pid

async def before_the_fork():
    database = await get_database()
    held = await database.connection().start()
    return database, held, {await pid_of(held), await pid_of_next(database)}

async def after_the_fork(database, held, pids):
    assert {await pid_of(held), await pid_of_next(database)} == pids
    await held.close()
    assert await get_database() is database
    stats = database.pool_stats()
    assert (stats.opened, stats.idle) == (5, 5), stats
    await close_database()

with asyncio.Runner() as runner:
    database, held, pids = runner.run(before_the_fork())
    forked = os.fork()
    if not forked:
        status = 1
        try:
            run = {"same": runner.run, "new": asyncio.run}[sys.argv[1]]
            assert run(child(database)) not in pids
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(forked, 0)
    assert status == 0, status
    runner.run(after_the_fork(database, held, pids))
"""


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_in_another_event_loop_it_refuses_at_once(
    module_database: DatabaseSettings, use: Callable[[Database], Awaitable[Any]]
) -> None:
    async def elsewhere() -> None:
        with pytest.raises(EventLoopError, match=r"another event loop.*get_database\(\)"):
            await use(db)

    # With no connection free, whoever came from elsewhere would wait for ever.
    async with running(module_database, pool_size=1) as (db, eye), all_in_use(db, 1) as (one,):
        before = await pid_of(one)
        began = time.monotonic()
        await asyncio.to_thread(asyncio.run, elsewhere())

        assert time.monotonic() - began < AT_ONCE_SECONDS
        assert await pid_of(one) == before
        assert await eye.pids() == {before}


async def test_health_from_another_event_loop_tells_why_it_can_not_say(
    module_database: DatabaseSettings,
) -> None:
    async with Database(module_database) as db:
        health = await asyncio.to_thread(asyncio.run, db.health())

        assert not health.ok
        assert "another event loop" in str(health.reason)
        assert (await db.health()).ok


def test_an_engine_belongs_to_the_next_event_loop_when_it_was_disposed_of(
    module_database: DatabaseSettings,
) -> None:
    engine = create_engine(module_database)

    async def use() -> None:
        async with engine.connect() as connection:
            await pid_of(connection)

    async def use_and_dispose() -> None:
        await use()
        await engine.dispose()

    asyncio.run(use_and_dispose())
    asyncio.run(use_and_dispose())


@pytest.mark.parametrize("event_loop", ["new", "same"])
def test_a_forked_child_has_a_database_of_its_own_and_leaves_its_parents_alone(
    module_database: DatabaseSettings, event_loop: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PARENT_AND_CHILD, event_loop],
        capture_output=True,
        check=False,
        env=environment(module_database),
        text=True,
        timeout=60,
    )

    assert result.returncode == 0, result.stderr
