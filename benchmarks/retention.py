"""Measure how a month of a million rows goes: dropped by maintenance, and by DELETE at 0003.

Run with `make bench`. Both have the same rows, in both event tables. Goals: less than a second for
each table, and no dead rows.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agentobs import migrations
from agentobs.maintenance import Month, Policy, Watcher, maintain
from benchmarks.growth import AFTER, BEFORE, open_database, settings_of
from benchmarks.growth_data import fill
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    import asyncpg

    from agentobs.embedded import EmbeddedServer
    from agentobs.maintenance.plan import Step

TABLES = {
    "agent_transformation_events": "started_at",
    "router_performance_metrics": "measured_at",
}
_DEAD = """
    SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables
    WHERE relname LIKE 'agent_transformation%' OR relname LIKE 'router_performance%'
"""


class Timer(Watcher):
    """Prints how long each step took."""

    def started(self, step: Step) -> None:
        """Note when it began."""
        del step
        self._began = time.perf_counter()

    def finished(self, step: Step) -> None:
        """Print how long it took."""
        print(f"  {time.perf_counter() - self._began:6.2f} s  {step}")


def main() -> None:
    """Print how long each way takes, and what it leaves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each event table")
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(server, parser.parse_args().rows))


async def _measure(server: EmbeddedServer, rows: int) -> None:
    month = Month.of(datetime.now(UTC) - timedelta(days=100))
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {BEFORE}")
    await migrations.upgrade("0003", settings=settings_of(server, BEFORE))
    async with open_database(server, BEFORE) as connection:
        await fill(connection, rows, month.first, month.end - timedelta(hours=1))
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {AFTER} TEMPLATE {BEFORE}")
    await migrations.upgrade("head", settings=settings_of(server, AFTER))
    await _drop(server)
    async with open_database(server, BEFORE) as connection:
        await _delete(connection)


async def _drop(server: EmbeddedServer) -> None:
    print("dropped by maintenance:")
    await maintain(
        Policy(keep=timedelta(days=30)), settings=settings_of(server, AFTER), watcher=Timer()
    )
    async with open_database(server, AFTER) as connection:
        await _print_dead(connection)


async def _delete(connection: asyncpg.Connection) -> None:
    print("deleted at 0003:")
    # A parent can't go before its children.
    await connection.execute("SET session_replication_role = replica")
    for table, instant in TABLES.items():
        began = time.perf_counter()
        await connection.execute(f"DELETE FROM {table} WHERE {instant} < now()")  # noqa: S608
        print(f"  {time.perf_counter() - began:6.2f} s  {table}")
    await _print_dead(connection)


async def _print_dead(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    print(f"  dead rows: {await connection.fetchval(_DEAD):,}")


if __name__ == "__main__":
    main()
