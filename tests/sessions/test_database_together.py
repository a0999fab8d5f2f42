from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
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

from agentobs import Database, close_database, get_database
from agentobs.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DatabaseNotRunningError,
    ReadOnlyError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


@pytest_asyncio.fixture
async def eye(module_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(module_database) as found:
        yield found


async def test_a_start_beside_another_one_waits_for_its_end(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        db = Database(wire.settings)
        wire.hold_up()
        first, second = (asyncio.create_task(db.start()) for _ in range(2))
        await asyncio.wait({second}, timeout=0.1)
        assert not second.done()
        wire.go_on()
        await asyncio.gather(first, second)

        assert db.pool_stats().opened == 5
        await db.stop()


async def test_a_start_beside_one_that_fails_fails_too(module_database: DatabaseSettings) -> None:
    async with relay(module_database) as wire:
        db = Database(changed(wire.settings, connect_timeout=0.3))
        wire.hold_up()
        results = await asyncio.gather(db.start(), db.start(), return_exceptions=True)

    assert isinstance(results[0], ConnectionFailedError)
    assert isinstance(results[1], DatabaseNotRunningError)


async def test_a_stop_that_is_cancelled_ends_all_the_same(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        holder = await db.connection().start()
        await pid_of(holder)
        stop = asyncio.create_task(db.stop(timeout=0.2))
        await asyncio.sleep(0)
        stop.cancel()
        await asyncio.wait({stop})

        assert stop.cancelled()
        assert not db.is_running
        await eventually(eye.is_alone)
        await holder.close()


async def test_who_waits_for_a_connection_learns_of_the_stop_at_its_end(
    module_database: DatabaseSettings,
) -> None:
    async def two_wait() -> bool:
        return db.pool_stats().waiting == 2

    async with running(module_database, pool_size=1) as (db, _):
        holder = await db.connection().start()
        waiters = [asyncio.create_task(pid_of_next(db)) for _ in range(2)]
        await eventually(two_wait)
        await db.stop(timeout=0.1)

        async with asyncio.timeout(AT_ONCE_SECONDS):
            errors = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(error) for error in errors] == [DatabaseNotRunningError] * 2
        await holder.close()


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


async def test_a_database_that_somebody_stopped_is_not_handed_out_again(
    module_database: DatabaseSettings,
) -> None:
    async with await get_database(module_database) as first:
        pass
    second = await get_database(module_database)

    assert second is not first
    assert await pid_of_next(second)
    await close_database()


async def test_closing_while_the_start_fails_is_no_error(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        await wire.close()
        getting = asyncio.create_task(get_database(wire.settings))
        await asyncio.sleep(0)
        await close_database()

        with pytest.raises(ConnectionFailedError):
            await getting


async def test_who_gives_up_closing_does_not_end_the_start_of_others(
    module_database: DatabaseSettings,
) -> None:
    getting = asyncio.create_task(get_database(module_database))
    await asyncio.sleep(0)
    closing = asyncio.create_task(close_database())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})

    assert (await getting).is_running
    await close_database()


async def test_loops_that_ended_without_closing_leave_no_connections(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async def job() -> None:
        db = await get_database(module_database)
        await pid_of_next(db)

    async def few_are_left() -> bool:
        return await eye.count() <= 5

    async def jobs() -> None:
        for _ in range(4):
            await asyncio.to_thread(asyncio.run, job())
        await asyncio.to_thread(asyncio.run, _get_and_close(module_database))

    with pytest.warns(ResourceWarning):
        await jobs()

    await eventually(few_are_left)


async def _get_and_close(settings: DatabaseSettings) -> None:
    await get_database(settings)
    await close_database()


async def test_a_read_session_begins_read_only_whatever_the_connection_was_told(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, _):
        async with db.read_session(autocommit=True) as session:
            await session.execute(text("SET default_transaction_read_only = off"))
        async with db.read_session() as session:
            with pytest.raises(ReadOnlyError):
                await session.execute(text("CREATE TABLE notes (note text)"))


@pytest.mark.parametrize("target", ["read-write", "primary", "any"])
async def test_read_sessions_go_where_writing_sessions_go(
    module_database: DatabaseSettings, target: str
) -> None:
    settings = changed(module_database, target_session_attrs=target)
    async with Database(settings) as db, db.read_session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_the_pools_tell_of_themselves_apart(module_database: DatabaseSettings) -> None:
    async with Database(module_database) as db, db.read_session() as session:
        await session.scalar(text("SELECT 1"))

        assert (db.pool_stats().in_use, db.pool_stats().size) == (0, 20)
        assert (db.read_pool_stats().in_use, db.read_pool_stats().size) == (1, 5)


async def test_a_replica_that_is_away_is_named_by_its_variable(
    module_database: DatabaseSettings,
) -> None:
    nowhere = SecretStr("postgresql://reader@127.0.0.1:1/agents")
    async with Database(changed(module_database, read_url=nowhere)) as db:
        session = db.read_session()
        with pytest.raises(ConnectionFailedError, match="AGENTOBS_READ_URL"):
            await session.connection()
        await session.close()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["postgresql://agent@db.example/agents"], {}),
        ([], {"database_url": "postgresql://agent@db.example/agents"}),
        ([], {"pool_min_size": 3}),
    ],
)
def test_settings_in_another_form_are_refused_with_the_right_one(
    arguments: list[Any], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", "postgresql://agent@db.example/agents")

    with pytest.raises(ConfigurationError, match=r"Database\(DatabaseSettings\("):
        Database(*arguments, **options)
