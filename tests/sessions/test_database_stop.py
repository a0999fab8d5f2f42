from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.pools import (
    AT_ONCE_SECONDS,
    changed,
    eventually,
    onlooker,
    pid_of,
    pid_of_next,
    running,
)
from support.relay import relay

from agentobs import Database
from agentobs.errors import ConnectionFailedError, DatabaseNotRunningError

if TYPE_CHECKING:
    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

BUSY = "SELECT pg_sleep(0.3)"
STUCK = "SELECT pg_sleep(30)"


async def test_a_stop_waits_for_statements_to_end(module_database: DatabaseSettings) -> None:
    async with running(module_database) as (db, eye):
        work = asyncio.create_task(_run(db, BUSY))
        await eventually(lambda: eye.running(BUSY))
        await db.stop()

        assert await work == "done"
        assert await eye.is_alone()


async def test_a_stop_waits_for_read_sessions_too(module_database: DatabaseSettings) -> None:
    async def read() -> str:
        async with db.read_session() as session:
            await session.execute(text(BUSY))
        return "done"

    async with running(module_database) as (db, eye):
        work = asyncio.create_task(read())
        await eventually(lambda: eye.running(BUSY))
        await db.stop()

        assert await work == "done"
        assert await eye.is_alone()


async def test_a_stop_lets_those_have_their_turn_who_wait_for_a_connection(
    module_database: DatabaseSettings,
) -> None:
    async def two_wait() -> bool:
        return db.pool_stats().waiting == 2

    async with running(module_database, pool_size=1) as (db, eye):
        works = [asyncio.create_task(_run(db, BUSY)) for _ in range(3)]
        await eventually(two_wait)
        await db.stop()

        assert await asyncio.gather(*works) == ["done"] * 3
        assert await eye.is_alone()


async def test_no_connection_is_given_out_during_a_stop(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        late_session, late_connection = db.session(), db.connection()
        async with db.connection() as connection:
            await pid_of(connection)
            stop = asyncio.create_task(db.stop())
            await asyncio.sleep(0)

            for use in (late_session.connection, late_connection.start):
                with pytest.raises(DatabaseNotRunningError, match="was stopped"):
                    await use()
            with pytest.raises(DatabaseNotRunningError):
                db.session()
            assert not stop.done()
            await pid_of(connection)
        await stop

        assert await eye.is_alone()


async def test_a_stop_ends_what_takes_too_long_and_says_how_much_that_was(
    module_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(module_database) as (db, eye):
        works = [asyncio.create_task(_run(db, STUCK)) for _ in range(2)]
        await eventually(lambda: _two_run(eye))
        began = time.monotonic()
        await db.stop(timeout=0.2)

        assert 0.2 <= time.monotonic() - began < AT_ONCE_SECONDS
        for error in await asyncio.gather(*works, return_exceptions=True):
            assert isinstance(error, ConnectionFailedError)
        (warning,) = (each for each in caplog.records if each.name == "agentobs.sessions")
        assert warning.levelno == logging.WARNING
        assert "2 connections were still in use" in warning.getMessage()


async def test_no_backend_goes_on_with_what_a_stop_has_ended(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        works = [asyncio.create_task(_run(db, STUCK)) for _ in range(2)]
        await eventually(lambda: _two_run(eye))
        await db.stop(timeout=0)
        await asyncio.gather(*works, return_exceptions=True)

        await eventually(eye.is_alone)


async def test_a_stop_ends_a_transaction_that_is_left_open(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        connection = await db.connection().start()
        await pid_of(connection)
        await db.stop(timeout=0)

        await eventually(eye.is_alone)
        with pytest.raises(ConnectionFailedError):
            await connection.execute(text("SELECT 1"))
        await connection.close()
        await eventually(eye.is_alone)


async def test_nobody_gets_the_connections_that_a_stop_has_ended(
    module_database: DatabaseSettings,
) -> None:
    async def one_waits() -> bool:
        return db.pool_stats().waiting == 1

    async with running(module_database, pool_size=1) as (db, eye):
        holder = await db.connection().start()
        waiter = asyncio.create_task(pid_of_next(db))
        await eventually(one_waits)
        await db.stop(timeout=0)
        await holder.close()

        with pytest.raises(DatabaseNotRunningError):
            await waiter
        await eventually(eye.is_alone)


async def test_a_stop_does_not_wait_for_a_task_that_gave_up(
    module_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async def it_is_opening() -> bool:
        return db.pool_stats().waiting == 1

    async with relay(module_database) as wire:
        db = Database(changed(wire.settings, pool_min_size=0))
        await db.start()
        wire.hold_up()
        work = asyncio.create_task(pid_of_next(db))
        await eventually(it_is_opening)
        stop = asyncio.create_task(db.stop())
        await asyncio.sleep(0)
        work.cancel()

        async with asyncio.timeout(AT_ONCE_SECONDS):
            await stop
        assert "still in use" not in caplog.text


async def test_a_connection_that_is_still_opening_after_a_stop_is_closed(
    module_database: DatabaseSettings,
) -> None:
    async def it_is_opening() -> bool:
        return db.pool_stats().waiting == 1

    async with relay(module_database) as wire, onlooker(module_database) as eye:
        db = Database(changed(wire.settings, pool_min_size=0))
        await db.start()
        wire.hold_up()
        work = asyncio.create_task(pid_of_next(db))
        await eventually(it_is_opening)
        await db.stop(timeout=0)
        wire.go_on()

        with pytest.raises(DatabaseNotRunningError):
            await work
        await eventually(eye.is_alone)


async def test_a_stop_ends_in_time_where_the_network_has_fallen_silent(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        db = Database(changed(wire.settings, pool_min_size=2, command_timeout=3.0))
        await db.start()
        wire.hold_up()
        began = time.monotonic()
        await db.stop(timeout=0.2)
        took = time.monotonic() - began
        wire.go_on()

        assert took < AT_ONCE_SECONDS


async def test_a_task_whose_connection_a_stop_has_cut_off_is_told_so(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        db = Database(changed(wire.settings, pool_min_size=0))
        await db.start()
        connection = await db.connection().start()
        await pid_of(connection)
        wire.hold_up()
        await db.stop(timeout=0)
        wire.go_on()

        try:
            with pytest.raises(ConnectionFailedError):
                await connection.execute(text("SELECT 1"))
        finally:
            with suppress(ConnectionFailedError):
                await connection.close()


async def _run(db: Database, statement: str) -> str:
    async with db.connection() as connection:
        await connection.execute(text(statement))
    return "done"


async def _two_run(eye: Onlooker) -> bool:
    return len(await eye.running(STUCK)) == 2
