"""Measure COPY into the tables at head, beside the same into revision 0003 and into bare tables.

Run with `make bench`. The rows are the same each time, in batches as a writer sends them, and of
this month: `benchmarks.workload` says what they look like. What GIN indexes put off is done within
the time. Goals: events at head 1.5 x 0003 and 0.35 x bare, metrics 1.8 x 0003 and 0.45 x bare.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from agentobs import DatabaseSettings, migrations
from benchmarks import workload
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs.embedded import EmbeddedServer

ROUNDS = 3
ROWS = 100_000
EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"
GOALS = {EVENTS: (1.5, 0.35), METRICS: (1.8, 0.45)}
SUBJECTS = ("bare", "at_0003", "at_head")
_PENDING = """
    SELECT gin_clean_pending_list(indexrelid) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_am ON pg_am.oid = relam AND amname = 'gin'
    WHERE relnamespace = CAST($1 AS regnamespace) AND relkind = 'i'
"""


@dataclass(frozen=True)
class Load:
    """Rows of one table, cut into batches."""

    table: str
    columns: list[str]
    batches: list[list[tuple[Any, ...]]]


def main() -> None:
    """Print rows a second into each, and the ratios."""
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(server))


async def _measure(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(_dsn(server))
    try:
        definitions = workload.definitions()
        await _prepare(server, connection, definitions)
        for load in _loads(definitions):
            await _compare(connection, load)
    finally:
        await connection.close()


async def _prepare(
    server: EmbeddedServer, connection: asyncpg.Connection, definitions: list[workload.Row]
) -> None:
    for schema, revision in (("at_0003", "0003"), ("at_head", "head")):
        settings = DatabaseSettings(database_url=server.url, schema_name=schema)
        await migrations.upgrade(revision, settings=settings)
        await _copy(connection, schema, "agent_definitions", definitions)
    await connection.execute("CREATE SCHEMA bare")
    for table in (EVENTS, METRICS):
        await connection.execute(f"CREATE TABLE bare.{table} (LIKE at_0003.{table})")


async def _copy(
    connection: asyncpg.Connection, schema: str, table: str, rows: list[workload.Row]
) -> None:
    await connection.copy_records_to_table(
        table, schema_name=schema, columns=list(rows[0]), records=workload.records(rows)
    )


def _loads(definitions: list[workload.Row]) -> Iterator[Load]:
    now = datetime.now(UTC)
    span = workload.Span(max(now.replace(day=1, hour=0), now - timedelta(days=7)), now)
    yield _load(EVENTS, list(workload.events(ROWS, span, agents=definitions)))
    yield _load(METRICS, list(workload.metrics(ROWS, span)))


def _load(table: str, rows: list[workload.Row]) -> Load:
    return Load(table, list(rows[0]), [workload.records(part) for part in workload.batches(rows)])


async def _compare(connection: asyncpg.Connection, load: Load) -> None:
    times: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
    for _ in range(ROUNDS):
        for subject in SUBJECTS:
            times[subject].append(await _pass(connection, subject, load))
    rates = {subject: ROWS / statistics.median(found) for subject, found in times.items()}
    print(f"{load.table}, {ROWS:,} rows in batches of {workload.BATCH:,}: median of {ROUNDS}")
    for subject, rate in rates.items():
        print(f"  {subject:<8} {rate:>9,.0f} rows/s")
    for subject, goal in zip(("at_0003", "bare"), GOALS[load.table], strict=True):
        ratios = [
            there / here for there, here in zip(times[subject], times["at_head"], strict=True)
        ]
        print(f"  head is {statistics.median(ratios):.2f} x {subject} (goal {goal})")


async def _pass(connection: asyncpg.Connection, schema: str, load: Load) -> float:
    await connection.execute(f"TRUNCATE {schema}.{load.table}")
    await connection.execute("CHECKPOINT")
    began = time.perf_counter()
    for records in load.batches:
        await connection.copy_records_to_table(
            load.table, schema_name=schema, columns=load.columns, records=records
        )
    await connection.fetch(_PENDING, schema)
    return time.perf_counter() - began


def _dsn(server: EmbeddedServer) -> str:
    return server.url.replace("+asyncpg", "")


if __name__ == "__main__":
    main()
