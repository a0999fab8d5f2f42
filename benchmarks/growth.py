"""Measure what growth costs: the way from 0003 to head, and queries there and here.

`make bench` runs it with a million rows in each event table, `make bench-large` with ten million.
The rows are made by SQL in a database at 0003; a copy of it is brought to head, and both are asked
the same, in turns. Times are medians. Goals: at head no query slower than at 0003 by more than a
tenth, and within the milliseconds named.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import make_url

from agentobs import DatabaseSettings, migrations
from benchmarks.growth_data import WORKFLOW, fill
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from agentobs.embedded import EmbeddedServer

BEFORE, AFTER = "at_0003", "at_head"
TIMES = 60
DAYS = 390
AGENTS = 24
GIGABYTE = 1e9
# A pair of rows with its indexes at 0003, and how often that room is needed at the peak: the
# original, its copy, the copy's new tables with what sorting takes, and the WAL.
BYTES_A_PAIR, PEAK = 3_600, 3.5


@dataclass(frozen=True)
class Query:
    """A question, as it is best asked at each revision; `goal` is in milliseconds."""

    name: str
    goal: float
    before: str
    after: str


@dataclass
class Peak:
    """The largest size that was seen, in bytes."""

    size: int = field(default=0)


_NEWEST = (
    "SELECT id, correlation_id, success FROM agent_transformation_events WHERE target_agent = $1"
)
_AGGREGATE = (
    "SELECT target_agent, count(*), avg(success::integer), avg(total_execution_duration_ms), "
    "avg(quality_score) FROM agent_transformation_events WHERE {} GROUP BY 1"
)
_BY_ID = "SELECT * FROM agent_transformation_events WHERE id = $1"
_BY_CORRELATION = "SELECT * FROM agent_transformation_events WHERE correlation_id = $1 ORDER BY {}"
_CONTAINING = "SELECT id FROM agent_transformation_events WHERE context_snapshot @> $1"
QUERIES = (
    Query("by id", 10, _BY_ID, _BY_ID),
    Query("by correlation", 50, _BY_CORRELATION.format("started_at"), _BY_CORRELATION.format("id")),
    Query(
        "newest 50 of an agent",
        50,
        f"{_NEWEST} ORDER BY started_at DESC LIMIT 50",
        f"{_NEWEST} ORDER BY id DESC LIMIT 50",
    ),
    Query("context @> one", 100, _CONTAINING, _CONTAINING),
    Query(
        "7-day aggregate",
        200,
        _AGGREGATE.format("started_at > now() - interval '7 days'"),
        _AGGREGATE.format("id >= agentobs_uuid7_floor(now() - interval '7 days')"),
    ),
)


def main() -> None:
    """Print the way to head, and the queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each event table")
    rows = parser.parse_args().rows
    print(f"this takes up to {rows * BYTES_A_PAIR * PEAK / GIGABYTE:.0f} GB of disk")
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(server, rows))


async def _measure(server: EmbeddedServer, rows: int) -> None:
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {BEFORE}")
    await migrations.upgrade("0003", settings=settings_of(server, BEFORE))
    async with open_database(server, BEFORE) as connection:
        now = datetime.now(UTC)
        await fill(connection, rows, now - timedelta(days=DAYS), now)
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {AFTER} TEMPLATE {BEFORE}")
    await _upgrade(server, rows)
    async with open_database(server, BEFORE) as before, open_database(server, AFTER) as after:
        for query in QUERIES:
            await _compare(before, after, query)


async def _upgrade(server: EmbeddedServer, rows: int) -> None:
    peak = Peak()
    async with open_database(server, AFTER) as connection:
        start = await connection.fetchval("SELECT pg_current_wal_lsn()")
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        watching = asyncio.create_task(_watch_size(server, peak))
        began = time.perf_counter()
        await migrations.upgrade("head", settings=settings_of(server, AFTER))
        seconds = time.perf_counter() - began
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        wal = await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", start)
        kept = await connection.fetchval("SELECT count(*) FROM agent_transformation_events")
        await connection.execute("VACUUM (ANALYZE)")
    print(
        f"0003 to head with {rows:,} rows in each table: {seconds:.0f} s, "
        f"{float(wal) / GIGABYTE:.1f} GB of WAL, disk {size / GIGABYTE:.1f} GB before and "
        f"{peak.size / GIGABYTE:.1f} GB at the peak, {kept:,} events afterwards"
    )


async def _watch_size(server: EmbeddedServer, peak: Peak) -> None:
    async with open_database(server, "postgres") as connection:
        while True:
            size = await connection.fetchval("SELECT pg_database_size($1::text)", AFTER)
            peak.size = max(peak.size, size)
            await asyncio.sleep(0.5)


async def _compare(before: asyncpg.Connection, after: asyncpg.Connection, query: Query) -> None:
    plain, head = await _arguments(before, query), await _arguments(after, query)
    times: dict[str, list[float]] = {BEFORE: [], AFTER: []}
    for there, here in zip(plain, head, strict=True):
        times[BEFORE].append(await _timed(before, query.before, there))
        times[AFTER].append(await _timed(after, query.after, here))
    was, now = (1000 * statistics.median(found) for found in times.values())
    print(
        f"{query.name:<24} 0003 {was:>9.2f} ms   head {now:>9.2f} ms   {now / was:5.2f} x"
        f"   (goal {query.goal} ms)"
    )


async def _timed(connection: asyncpg.Connection, statement: str, arguments: list[Any]) -> float:
    began = time.perf_counter()
    await connection.fetch(statement, *arguments)
    return time.perf_counter() - began


async def _arguments(connection: asyncpg.Connection, query: Query) -> list[list[Any]]:
    """Return what the query is asked of this database, another thing each time."""
    if query.name == "7-day aggregate":
        return [[]] * (TIMES // 4)
    if query.name == "newest 50 of an agent":
        return [[f"agent-{number % AGENTS}"] for number in range(TIMES)]
    events = await connection.fetch(
        "SELECT id, correlation_id, context_snapshot FROM agent_transformation_events "
        "WHERE session_id IN (SELECT md5('s' || n * 97)::uuid FROM generate_series(0, $1) AS n) "
        "ORDER BY context_snapshot->>'task' LIMIT $2",
        TIMES // WORKFLOW,
        TIMES,
    )
    return [[_argument(query, event)] for event in events]


def _argument(query: Query, event: asyncpg.Record) -> UUID | str:
    if query.name == "by id":
        found: UUID = event["id"]
        return found
    if query.name == "by correlation":
        workflow: UUID = event["correlation_id"]
        return workflow
    return str(event["context_snapshot"]).partition(", ")[0] + "}"


@asynccontextmanager
async def open_database(server: EmbeddedServer, database: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a plain connection to a database of the server."""
    url = make_url(server.url).set(drivername="postgresql", database=database)
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        await connection.close()


def settings_of(server: EmbeddedServer, database: str) -> DatabaseSettings:
    """Return settings that name a database of the server."""
    url = make_url(server.url).set(database=database)
    return DatabaseSettings(database_url=url.render_as_string(hide_password=False))


if __name__ == "__main__":
    main()
