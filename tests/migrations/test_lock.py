from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.shell import HEAD

from agentobs import migrations
from agentobs.errors import MigrationError, MigrationLockError
from agentobs.migrations.lock import lock_key

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

KEY = lock_key("public", migrations.VERSION_TABLE)

_WAITERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE '%pg_try_advisory_lock%'
      AND application_name = 'agentobs migrations'
"""


async def _lock(connection: AsyncConnection) -> int:
    await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": KEY})
    return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


async def test_a_run_that_waits_too_long_names_the_backend_in_its_way(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    holder = await _lock(connection)

    with pytest.raises(MigrationLockError, match=str(holder)) as caught:
        await migrations.upgrade(settings=empty.model_copy(update={"migration_lock_wait": 0.0}))

    assert caught.value.holders == (holder,)
    assert await migrations.current(settings=empty) is None


async def test_a_waiting_run_lets_the_holder_build_an_index_concurrently(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await _lock(connection)
    await connection.execute(text("CREATE TABLE big (id integer)"))
    waiter = asyncio.create_task(migrations.upgrade(settings=empty))
    # The event loop is free while the run waits, else this loop would not come to an end.
    while not await connection.scalar(text(_WAITERS)):
        assert not waiter.done()

    # A waiter that blocked inside pg_advisory_lock() would hold a snapshot that this waits for.
    await connection.execute(text("SET statement_timeout = '30s'"))
    await connection.execute(text("CREATE INDEX CONCURRENTLY big_id ON big (id)"))
    assert not waiter.done()

    await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": KEY})
    await waiter
    assert await migrations.current(settings=empty) == HEAD


async def test_the_lock_is_released_after_a_run_that_fails(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE TABLE agent_definitions (id integer)"))
    with pytest.raises(MigrationError):
        await migrations.upgrade(settings=empty)
    await connection.execute(text("DROP TABLE agent_definitions"))

    await migrations.upgrade(settings=empty.model_copy(update={"migration_lock_wait": 0.0}))


async def test_a_run_on_another_schema_does_not_wait(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await _lock(connection)
    other = empty.model_copy(update={"schema_name": "other", "migration_lock_wait": 0.0})

    await migrations.upgrade(settings=other)
