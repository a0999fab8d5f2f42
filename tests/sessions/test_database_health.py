from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from support.pools import AT_ONCE_SECONDS, all_in_use, changed, eventually, running
from support.relay import relay
from support.shell import HEAD

from agentobs import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentobs import DatabaseSettings, Health

pytest_plugins = ["support.pool_fixtures"]


async def test_a_migrated_database_is_healthy(module_database: DatabaseSettings) -> None:
    async with running(module_database) as (db, eye):
        health = await db.health()

        assert health.ok
        assert health.reason is None
        assert health.revision == HEAD
        version = str(await eye.scalar("SHOW server_version"))
        assert str(health.server_version).split(".")[0] in version
        assert 0 < health.latency_ms < 1000 * AT_ONCE_SECONDS


async def test_a_check_costs_one_round_trip(module_database: DatabaseSettings) -> None:
    async with relay(module_database) as wire, Database(wire.settings) as db:
        await db.health()
        wire.forget()

        assert (await db.health()).ok
        assert wire.round_trips == len(wire.executed) == 1


async def test_a_database_without_tables_is_not_healthy(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    async with Database(agentobs_empty_database) as db:
        health = await db.health()

        assert not health.ok
        assert health.revision is None
        assert "agentobs db upgrade" in str(health.reason)


async def test_a_database_without_a_recorded_revision_is_not_healthy(
    agentobs_database: DatabaseSettings,
) -> None:
    async with running(agentobs_database) as (db, eye):
        await eye.execute("DELETE FROM agentobs_alembic_version")
        health = await db.health()

        assert not health.ok
        assert "agentobs db upgrade" in str(health.reason)


async def test_what_is_not_running_is_not_healthy(module_database: DatabaseSettings) -> None:
    db = Database(module_database)
    before = await db.health()
    async with db:
        assert (await db.health()).ok
    after = await db.health()

    for health in (before, after):
        assert not health.ok
        assert "not running" in str(health.reason)


async def test_an_unreachable_server_is_not_healthy(module_database: DatabaseSettings) -> None:
    async def it_is_noticed() -> bool:
        return db.pool_stats().idle == 0

    async with relay(module_database) as wire, Database(wire.settings) as db:
        await wire.close()
        await eventually(it_is_noticed)
        health = await db.health()
        assert not health.ok
        assert "can't connect" in str(health.reason)

        await wire.open()
        assert (await db.health()).ok


async def test_a_connection_that_was_lost_unnoticed_is_not_healthy_once(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, pool_size=1) as (db, eye):
        async with all_in_use(db, 1):
            pids = await eye.pids()
        await eye.terminate(*pids)

        await eventually(lambda: _is_ok(db))


async def test_a_server_that_never_answers_is_not_healthy_within_the_time_for_it(
    module_database: DatabaseSettings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = changed(
            module_database,
            database_url=None,
            host="127.0.0.1",
            port=silent.getsockname()[1],
            pool_min_size=0,
        )
        async with Database(settings) as db:
            async with _soon():
                health = await db.health(timeout=0.2)
            assert health.reason == "no answer within 0.2 s"
            assert not health.ok
            await eventually(lambda: _none_waits(db))


async def test_a_network_that_falls_silent_is_not_healthy_within_the_time_for_it(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire, Database(wire.settings) as db:
        assert (await db.health()).ok
        wire.hold_up()
        async with _soon():
            health = await db.health(timeout=0.2)
            wire.go_on()
        assert not health.ok
        assert health.reason == "no answer within 0.2 s"

        assert (await db.health()).ok


async def test_a_table_that_is_locked_is_not_healthy_within_the_time_for_it(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, eye):
        async with db.begin() as session:
            connection = await session.connection()
            await connection.exec_driver_sql("LOCK TABLE agentobs_alembic_version")
            async with _soon():
                health = await db.health(timeout=0.2)
            assert not health.ok
            assert health.reason == "no answer within 0.2 s"

        assert (await db.health()).ok
        assert "active" not in await eye.states()


async def test_an_exhausted_pool_is_not_healthy_within_the_time_for_it(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, pool_size=2) as (db, _):
        async with all_in_use(db, 2):
            async with _soon():
                health = await db.health(timeout=0.2)
            assert not health.ok
            assert health.reason == "every connection was in use for 0.2 s (2 in all)"
            await eventually(lambda: _none_waits(db))

        assert (await db.health()).ok


async def test_a_check_that_is_cancelled_is_cancelled(module_database: DatabaseSettings) -> None:
    async with running(module_database, pool_size=1) as (db, _), all_in_use(db, 1):
        check: asyncio.Task[Health] = asyncio.create_task(db.health())
        await asyncio.sleep(0)
        check.cancel()

        assert isinstance(*await asyncio.gather(check, return_exceptions=True), BaseException)
        assert check.cancelled()


async def _none_waits(db: Database) -> bool:
    return db.pool_stats().waiting == 0


async def _is_ok(db: Database) -> bool:
    return (await db.health()).ok


@asynccontextmanager
async def _soon() -> AsyncIterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE_SECONDS
