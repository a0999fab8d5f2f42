from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.pools import (
    AT_ONCE_SECONDS,
    all_in_use,
    changed,
    eventually,
    onlooker,
    pid_of,
    pid_of_next,
    running,
)
from support.relay import relay
from support.shell import psql

from agentobs import Database
from agentobs.errors import ConnectionFailedError

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

PING = "SELECT 1"
ONE_CONNECTION = {"pool_size": 1, "pool_min_size": 1}


async def test_a_connection_is_replaced_after_so_many_statements(
    module_database: DatabaseSettings,
) -> None:
    settings = {**ONE_CONNECTION, "pool_max_queries": 3}
    async with running(module_database, **settings) as (db, eye):
        pids = [await pid_of_next(db) for _ in range(4)]

        assert pids[0] == pids[1] == pids[2] != pids[3]
        assert await eye.pids() == {pids[3]}
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled) == (2, 1)


async def test_a_statement_for_many_rows_counts_too(agentobs_database: DatabaseSettings) -> None:
    settings = {**ONE_CONNECTION, "pool_max_queries": 3}
    async with running(agentobs_database, **settings) as (db, eye):
        await eye.execute("CREATE TABLE numbers (number integer)")
        before = await pid_of_next(db)
        for _ in range(2):
            async with db.begin() as session:
                await session.execute(
                    text("INSERT INTO numbers VALUES (:number)"), [{"number": 1}, {"number": 2}]
                )

        assert await pid_of_next(db) != before
        assert await eye.scalar("SELECT count(*) FROM numbers") == 4


async def test_a_transaction_keeps_its_connection_whatever_it_runs(
    module_database: DatabaseSettings,
) -> None:
    settings = {**ONE_CONNECTION, "pool_max_queries": 2}
    async with running(module_database, **settings) as (db, _), db.connection() as connection:
        assert len({await pid_of(connection) for _ in range(5)}) == 1


async def test_idle_connections_beyond_the_smallest_number_are_closed(
    module_database: DatabaseSettings,
) -> None:
    async def five_are_left() -> bool:
        return await eye.count() == db.pool_stats().idle == 5

    async def all_are_old() -> bool:
        return len(await eye.pids(idle_seconds=1.0)) == 5

    async with running(module_database, pool_idle_lifetime=0.3) as (db, eye):
        async with all_in_use(db, 9):
            assert await eye.count() == 9
        await eventually(five_are_left)

        await eventually(all_are_old)
        assert await eye.count() == 5


async def test_a_closed_idle_connection_leaves_room_for_another_one(
    module_database: DatabaseSettings,
) -> None:
    async def none_is_left() -> bool:
        return await eye.count() == 0

    settings = {"pool_size": 3, "pool_min_size": 0, "pool_idle_lifetime": 0.2}
    async with running(module_database, **settings) as (db, eye):
        async with all_in_use(db, 3):
            pass
        await eventually(none_is_left)

        async with all_in_use(db, 3):
            assert await eye.count() == 3
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled) == (6, 3)


async def test_a_connection_that_was_idle_for_too_long_is_replaced(
    module_database: DatabaseSettings,
) -> None:
    async def it_is_old() -> bool:
        return before in await eye.pids(idle_seconds=0.4)

    settings = {**ONE_CONNECTION, "pool_idle_lifetime": 0.3}
    async with running(module_database, **settings) as (db, eye):
        before = await pid_of_next(db)
        await eventually(it_is_old)
        after = await pid_of_next(db)

        assert after != before
        assert await eye.pids() == {after}
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled) == (2, 1)


async def test_a_connection_in_steady_use_lives_on(module_database: DatabaseSettings) -> None:
    async def it_is_old() -> bool:
        assert await pid_of_next(db) == before
        age = "SELECT now() - backend_start > '0.8 s' FROM pg_stat_activity WHERE pid = :pid"
        return bool(await eye.scalar(age, pid=before))

    settings = {**ONE_CONNECTION, "pool_idle_lifetime": 0.4}
    async with running(module_database, **settings) as (db, eye):
        before = await pid_of_next(db)
        await eventually(it_is_old)


async def test_a_connection_new_or_just_used_is_not_tested(
    module_database: DatabaseSettings,
) -> None:
    async with (
        relay(module_database) as wire,
        Database(changed(wire.settings, pool_size=1, pool_min_size=0)) as db,
    ):
        await pid_of_next(db)
        assert PING not in wire.executed
        wire.forget()
        await pid_of_next(db)

        assert wire.executed == ["BEGIN;", "SELECT pg_backend_pid()", "ROLLBACK;"]
        assert wire.round_trips == 3


async def test_a_connection_is_tested_once_at_each_check_out_where_that_is_asked_for(
    module_database: DatabaseSettings,
) -> None:
    async with (
        relay(module_database) as wire,
        Database(changed(wire.settings, **ONE_CONNECTION, pool_ping_after=0)) as db,
    ):
        wire.forget()
        for _ in range(3):
            await pid_of_next(db)

        assert wire.executed.count(PING) == 3


async def test_a_connection_is_tested_after_a_while_without_use(
    module_database: DatabaseSettings,
) -> None:
    async def it_is_idle() -> bool:
        return before in await eye.pids(idle_seconds=0.6)

    settings = {**ONE_CONNECTION, "pool_ping_after": 0.5}
    async with (
        relay(module_database) as wire,
        onlooker(module_database) as eye,
        Database(changed(wire.settings, **settings)) as db,
    ):
        before = await pid_of_next(db)
        await eventually(it_is_idle)
        wire.forget()

        assert await pid_of_next(db) == before
        assert wire.executed[:2] == [PING, "BEGIN;"]
        assert await pid_of_next(db) == before
        assert wire.executed.count(PING) == 1


async def test_an_idle_connection_that_the_server_closed_is_replaced_without_an_error(
    module_database: DatabaseSettings,
) -> None:
    async def it_is_noticed() -> bool:
        return db.pool_stats().idle == 0

    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        before = await pid_of_next(db)
        await eye.terminate(before)
        await eventually(it_is_noticed)

        assert await pid_of_next(db) != before
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled, stats.idle) == (2, 1, 1)


async def test_a_connection_that_is_lost_in_use_is_replaced(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        async with db.connection() as connection:
            before = await pid_of(connection)
            await eye.terminate(before)
            with pytest.raises(ConnectionFailedError):
                await pid_of(connection)

        assert await pid_of_next(db) != before
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled, stats.idle) == (2, 1, 1)


async def test_a_replaced_connection_is_counted_once(module_database: DatabaseSettings) -> None:
    async def it_is_closed() -> bool:
        return before not in await eye.pids()

    settings = {"pool_size": 1, "pool_min_size": 0, "pool_idle_lifetime": 0.2}
    async with running(module_database, **settings, pool_max_queries=2) as (db, eye):
        before = await pid_of_next(db)
        assert await pid_of_next(db) == before, "it has run what it may"
        await eventually(it_is_closed)
        await pid_of_next(db)

        stats = db.pool_stats()
        assert (stats.opened, stats.recycled) == (2, 1)


async def test_a_test_finds_the_connection_that_was_closed_unnoticed(
    module_database: DatabaseSettings,
) -> None:
    settings = {**ONE_CONNECTION, "pool_ping_after": 0}
    async with running(module_database, **settings) as (db, _):
        before = await pid_of_next(db)
        # The event loop stands still meanwhile, so that nobody here hears of it.
        result = psql(module_database, f"SELECT pg_terminate_backend({before}, 5000)")
        assert result.returncode == 0, result.stderr

        assert await pid_of_next(db) != before
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled) == (2, 1)


async def test_a_connection_that_died_in_silence_holds_nobody_up_for_long(
    module_database: DatabaseSettings,
) -> None:
    settings = {"pool_size": 1, "pool_min_size": 1, "pool_ping_after": 0, "command_timeout": 0}
    async with relay(module_database) as wire:
        db = Database(changed(wire.settings, **settings))
        await db.start()
        before = await pid_of_next(db)
        wire.hold_up()
        work = asyncio.create_task(pid_of_next(db))
        await asyncio.wait({work}, timeout=2.5)
        wire.go_on()

        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await work != before
        await db.stop()
