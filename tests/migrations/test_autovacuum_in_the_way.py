"""An autovacuum that takes its time keeps no upgrade from its locks: it gives way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text
from support.event_rows import EVENTS
from support.pools import eventually
from support.private_server import private_server
from support.shell import HEAD, connect, connect_in_transaction

from agentobs import migrations
from agentobs.migrations.online import locks
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

# A page is vacuumed in a tenth of a second, of both tables: that of the rows, and TOAST.
SLOWLY = ", ".join(
    f"{prefix}autovacuum_vacuum_{name}"
    for prefix in ("", "toast.")
    for name in (
        "threshold = 0",
        "scale_factor = 0",
        "insert_threshold = 0",
        "insert_scale_factor = 0",
        "cost_delay = 100",
        "cost_limit = 1",
    )
)
INSERTED = f"""
    INSERT INTO {EVENTS} (event_type, correlation_id, target_agent, context_snapshot, started_at)
    SELECT 'x', gen_random_uuid(), 'a', jsonb_build_object('long', (
        SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, 200) AS m)), now()
    FROM generate_series(1, 3000) AS n
"""
UPDATED = f"UPDATE {EVENTS} SET context_snapshot = context_snapshot || '{{\"more\": 1}}'"
ONE_ROW = (
    f"INSERT INTO {EVENTS} (event_type, correlation_id, target_agent) "
    "VALUES ('x', gen_random_uuid(), 'a')"
)
AT_WORK = text(
    """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE backend_type = 'autovacuum worker' AND mode = 'ShareUpdateExclusiveLock' AND granted
      AND relation = CASE WHEN :is_toast
          THEN (SELECT reltoastrelid FROM pg_class WHERE oid = to_regclass(:table))
          ELSE to_regclass(:table) END
    """
)


@pytest.fixture(scope="module")
def busy_server() -> Iterator[URL]:
    with private_server(options={"autovacuum_naptime": "1s"}) as server:
        yield make_url(server.url())


@pytest.fixture
def busy(busy_server: URL) -> Iterator[DatabaseSettings]:
    with temporary_database(busy_server) as name:
        yield settings_for(busy_server, name)


async def vacuum_slowly(connection: AsyncConnection, table: str) -> None:
    await connection.exec_driver_sql(f"ALTER TABLE {table} SET (fillfactor = 10, {SLOWLY})")
    for statement in (INSERTED, UPDATED):
        await connection.exec_driver_sql(statement)


async def until_vacuumed(
    connection: AsyncConnection, table: str, *, is_toast: bool = False
) -> None:
    async def is_at_work() -> bool:
        values = {"table": table, "is_toast": is_toast}
        return bool(await connection.scalar(AT_WORK, values))

    await eventually(is_at_work)


@pytest.mark.parametrize("is_toast", [False, True], ids=["rows", "TOAST"])
async def test_what_an_online_upgrade_locks_is_no_longer_vacuumed(
    busy: DatabaseSettings, *, is_toast: bool
) -> None:
    await migrations.upgrade("0004", settings=busy)
    async with connect(busy) as watching, connect_in_transaction(busy) as locking:
        await vacuum_slowly(watching, EVENTS)
        await until_vacuumed(watching, EVENTS, is_toast=is_toast)

        await locking.run_sync(locks.lock_tables, "ACCESS EXCLUSIVE")

        at_work = {"table": EVENTS, "is_toast": is_toast}
        assert not await watching.scalar(AT_WORK, at_work)


async def test_an_online_upgrade_begins_and_swaps_beside_an_autovacuum(
    busy: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less than an autovacuum takes here.
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 20)
    await migrations.upgrade("0004", settings=busy)
    async with connect(busy) as connection:
        await vacuum_slowly(connection, EVENTS)
        await until_vacuumed(connection, EVENTS)

        await migrations.upgrade_online(settings=busy)

        assert await migrations.current(settings=busy) == HEAD
        assert await connection.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 3000


async def test_the_triggers_of_rollups_are_made_beside_an_autovacuum(
    busy: DatabaseSettings,
) -> None:
    await migrations.upgrade("0007", settings=busy)
    leaf = text(f"SELECT tableoid::regclass::text FROM {EVENTS} LIMIT 1")
    async with connect(busy) as connection:
        await connection.exec_driver_sql(ONE_ROW)
        month = await connection.scalar(leaf)
        assert isinstance(month, str)
        # To summarize it would send the vacuum away, too.
        summary = f"ALTER INDEX {month}_started_at_idx SET (autosummarize = off)"
        await connection.exec_driver_sql(summary)
        await vacuum_slowly(connection, month)
        await until_vacuumed(connection, month)

        await migrations.upgrade("0008", settings=busy)

        assert await migrations.current(settings=busy) == "0008"
