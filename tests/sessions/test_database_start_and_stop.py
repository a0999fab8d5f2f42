from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only
from support.pools import (
    AT_ONCE_SECONDS,
    changed,
    eventually,
    pid_of,
    pid_of_next,
    running,
)
from support.relay import relay

from agentobs import Database, create_engine
from agentobs.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DatabaseNotRunningError,
)

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


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


async def test_a_connection_that_breaks_while_it_is_set_up_is_one_that_failed(
    module_database: DatabaseSettings,
) -> None:
    def end(connection: Any, record: Any) -> None:
        del connection
        suicide = "SELECT pg_terminate_backend(pg_backend_pid())"
        await_only(record.driver_connection.execute(suicide))

    engine = create_engine(module_database)
    event.listen(engine.sync_engine, "connect", end)
    with pytest.raises(ConnectionFailedError, match="can't connect to"):
        await engine.connect()
    await engine.dispose()
