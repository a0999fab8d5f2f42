from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import sqlalchemy.exc
from sqlalchemy import text
from support.pools import (
    AT_ONCE_SECONDS,
    all_in_use,
    changed,
    eventually,
    pid_of,
    pid_of_next,
    running,
)

from agentobs import Database
from agentobs.errors import DatabaseError, PoolTimeoutError, StatementTimeoutError

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

SLEEP = "SELECT pg_sleep(20)"
ONE_CONNECTION = {"pool_size": 1, "pool_min_size": 1}


async def test_twenty_connections_are_open_at_once_and_the_next_task_waits(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye), all_in_use(db, 20) as connections:
        assert await eye.count() == 20

        next_one = asyncio.create_task(pid_of_next(db))
        await eventually(lambda: _waiting(db, 1))
        given_back = await pid_of(connections[0])
        assert not next_one.done()
        await connections[0].close()

        assert await next_one == given_back
        assert await eye.count() == 20


async def test_no_connection_is_closed_at_its_return(module_database: DatabaseSettings) -> None:
    async with running(module_database) as (db, eye):
        async with all_in_use(db, 20):
            pass
        opened = await eye.pids()
        async with all_in_use(db, 20):
            pass

        assert await eye.pids() == opened
        assert len(opened) == db.pool_stats().opened == 20


async def test_twelve_busy_tasks_open_no_more_than_twelve_connections(
    module_database: DatabaseSettings,
) -> None:
    async def work(db: Database) -> None:
        for _ in range(60):
            async with db.connection() as connection:
                await connection.execute(text("SELECT 1"))

    async with running(module_database) as (db, _):
        await asyncio.gather(*(work(db) for _ in range(12)))

        assert db.pool_stats().opened <= 12


async def test_five_connections_are_warm_after_the_start(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        assert await eye.names() == ["agentobs"] * 5
        assert await pid_of_next(db) in await eye.pids()
        assert await eye.count() == 5


async def test_a_small_pool_warms_no_more_than_its_size(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, pool_size=2) as (_, eye):
        assert await eye.count() == 2


async def test_a_service_may_have_a_name_of_its_own(module_database: DatabaseSettings) -> None:
    async with running(module_database, application_name="router") as (_, eye):
        assert await eye.names() == ["router"] * 5


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, (60.0, 60.0)), ({"connect_timeout": 7.0, "command_timeout": 0.0}, (7.0, None))],
    ids=["unset", "given"],
)
async def test_the_driver_is_told_how_long_to_wait(
    module_database: DatabaseSettings,
    given: dict[str, float],
    wanted: tuple[float, float | None],
) -> None:
    told: list[tuple[float, float | None]] = []

    async def connect(*args: Any, **options: Any) -> Any:
        told.append((options["timeout"], options["command_timeout"]))
        return await asyncpg.connect(*args, **options)

    settings = changed(module_database, pool_min_size=1, **given)
    async with Database(settings, connect_args={"async_creator_fn": connect}):
        assert told == [wanted]


async def test_a_statement_that_takes_too_long_ends_and_its_connection_is_replaced(
    module_database: DatabaseSettings,
) -> None:
    settings = {**ONE_CONNECTION, "command_timeout": 0.3}
    async with (
        running(module_database, **settings) as (db, eye),
        db.connection() as connection,
    ):
        before = await pid_of(connection)
        with pytest.raises(StatementTimeoutError, match="AGENTOBS_COMMAND_TIMEOUT") as caught:
            await connection.execute(text(SLEEP))
        assert isinstance(caught.value, TimeoutError)
        await connection.rollback()

        assert not await eye.running(SLEEP)
        assert await pid_of(connection) != before
        assert await eye.count() == 1


async def test_a_task_that_waits_too_long_for_a_connection_learns_what_to_do(
    module_database: DatabaseSettings,
) -> None:
    async with (
        running(module_database, **ONE_CONNECTION, pool_timeout=0.1) as (db, _),
        all_in_use(db, 1),
    ):
        began = time.monotonic()
        with pytest.raises(PoolTimeoutError, match=r"in use for 0\.1 s: give them back") as caught:
            await pid_of_next(db)

        assert 0.1 <= time.monotonic() - began < AT_ONCE_SECONDS
        assert "AGENTOBS_POOL_SIZE" in str(caught.value)
        assert isinstance(caught.value, DatabaseError)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, sqlalchemy.exc.TimeoutError)
        assert db.pool_stats().waiting == 0


async def test_the_last_connection_used_goes_out_first(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, _):
        async with all_in_use(db, 3) as connections:
            pids = [await pid_of(each) for each in connections]
            for each in connections:
                await each.close()
        async with all_in_use(db, 3) as connections:
            again = [await pid_of(each) for each in connections]

        assert again == pids[::-1]


async def test_statistics_tell_what_the_pool_is_doing(module_database: DatabaseSettings) -> None:
    async with running(module_database, pool_size=3, pool_min_size=2) as (db, _):
        started = db.pool_stats()
        assert (started.size, started.opened, started.recycled) == (3, 2, 0)
        assert (started.idle, started.in_use, started.waiting) == (2, 0, 0)

        async with all_in_use(db, 1):
            some = db.pool_stats()
            assert (some.idle, some.in_use, some.opened) == (1, 1, 2)

        async with all_in_use(db, 3):
            waiters = [asyncio.create_task(pid_of_next(db)) for _ in range(2)]
            await eventually(lambda: _waiting(db, 2))
            full = db.pool_stats()
            assert (full.idle, full.in_use, full.opened) == (0, 3, 3)
        await asyncio.gather(*waiters)

        after = db.pool_stats()
        assert (after.size, after.opened, after.recycled) == (3, 3, 0)
        assert (after.idle, after.in_use, after.waiting) == (3, 0, 0)


async def test_statistics_tell_how_long_tasks_wait_for_a_connection(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, pool_size=1, pool_min_size=0) as (db, _):
        assert db.pool_stats().acquisition_p95_ms is None

        async with db.connection() as connection:
            waiter = asyncio.create_task(pid_of_next(db))
            await eventually(lambda: _waiting(db, 1))
            await connection.execute(text("SELECT pg_sleep(0.2)"))
        await waiter
        slow = db.pool_stats().acquisition_p95_ms
        for _ in range(40):
            await pid_of_next(db)
        fast = db.pool_stats().acquisition_p95_ms

    assert slow is not None
    assert slow > 150
    assert fast is not None
    assert fast < 100, "one slow check-out of many moves the quantile"


async def _waiting(db: Database, count: int) -> bool:
    return db.pool_stats().waiting == count
