"""Measure how long `agentobs doctor` looks at a large database.

Run with `make bench` for a million rows in each event table, with `make bench-large` for ten
million. The rows are made by SQL and lie in an hour of each day of sixty months. Beside the doctor
stands what it can't do without, in turns: a connection of the plain driver, SELECT 1 and two looks
at the catalog. Goal: below 1 s for ten million rows over sixty partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs import DatabaseSettings, migrations
from agentobs.doctor import Severity, diagnose
from agentobs.maintenance import Month, maintain
from benchmarks.growth import open_database, settings_of
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    from agentobs.doctor import Diagnosis
    from agentobs.embedded import EmbeddedServer

NAME, MONTHS, GOAL_SECONDS = "examined", 60, 1.0
TIMES, COMMANDS = 9, 3
SLICE = 100_000
BYTES_A_PAIR = 900
EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"

# An hour of each day: to fold all hours of five years takes longer than all else here.
_NUMBERED = """
    (SELECT n, date_trunc('day', $1::timestamptz + ($2::timestamptz - $1) * (n / $3::float), 'UTC')
               + n % 3600 * interval '1 second' AS at
     FROM generate_series($4::integer, $5::integer) AS n) AS numbered
"""
_RUNS = f"""
    INSERT INTO {EVENTS} (id, event_type, correlation_id, session_id, target_agent,
        total_execution_duration_ms, success, quality_score, started_at)
    SELECT agentobs_uuid7_at(at), 'transformation_complete', md5('w' || n / 6)::uuid,
        md5('s' || n / 60)::uuid, 'agent-' || n % 24, n % 60000, n % 16 <> 0, 0.87, at
    FROM {_NUMBERED}
"""  # noqa: S608
_DECISIONS = f"""
    INSERT INTO {METRICS} (id, metric_type, correlation_id, selected_agent, confidence_score,
        total_routing_time_us, cache_hit, measured_at)
    SELECT agentobs_uuid7_at(at), 'routing_decision', md5('w' || n)::uuid, 'agent-' || n % 24,
        0.82, 1000 + n % 99000, n % 3 <> 0, at
    FROM {_NUMBERED}
"""  # noqa: S608
_INDEXES = f"""
    SELECT indexrelid::regclass::text AS name,
           replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition
    FROM pg_index WHERE indrelid IN ('{EVENTS}'::regclass, '{METRICS}'::regclass)
      AND NOT indisprimary
"""  # noqa: S608
# As before the first run: else each row would mark its hour, which is not what is measured here.
_OPEN_ALL_HOURS = (
    "SELECT setval('agentobs_rollup_watermark', 0)",
    "UPDATE agentobs_rollup_state SET folded_to = DEFAULT",
)
_CATALOG = (
    "SELECT 1",
    "SELECT relname, relkind::text, reltuples FROM pg_class",
    "SELECT inhrelid, inhparent FROM pg_inherits",
)


def main() -> None:
    """Print what the doctor takes, and what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each event table")
    rows = parser.parse_args().rows
    print(f"this takes up to {2 * rows * BYTES_A_PAIR / 1e9:.0f} GB of disk")
    with fresh_server() as server:
        print(environment(server))
        settings = asyncio.run(_filled(server, rows))
        asyncio.run(_compare(server, settings))
        _time_command(settings)


async def _filled(server: EmbeddedServer, rows: int) -> DatabaseSettings:
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {NAME}")
    settings = settings_of(server, NAME)
    await migrations.upgrade(settings=settings)
    until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    months = Month.of(until).year * 12 + Month.of(until).number - MONTHS
    since = Month(months // 12, months % 12 + 1).first
    began = time.perf_counter()
    async with open_database(server, NAME) as connection:
        # A month is made for the rows that are there.
        await _insert(connection, 4 * MONTHS, since, until)
        await maintain(settings=settings)
        for statement in _OPEN_ALL_HOURS:
            await connection.execute(statement)
        await _fill(connection, rows, since, until)
        await maintain(settings=settings)
        await connection.execute("VACUUM (ANALYZE)")
        partitions = await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = $1::regclass", METRICS
        )
    seconds = time.perf_counter() - began
    print(f"{rows:,} rows in each table over {partitions} partitions, made in {seconds:.0f} s")
    return settings


async def _fill(
    connection: asyncpg.Connection, rows: int, since: datetime, until: datetime
) -> None:
    """Insert the rows, and build the indexes after them, which is a fraction of the time."""
    indexes = await connection.fetch(_INDEXES)
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    await _insert(connection, rows, since, until)
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for index in indexes:
        await connection.execute(index["definition"])


async def _insert(
    connection: asyncpg.Connection, rows: int, since: datetime, until: datetime
) -> None:
    for first in range(1, rows + 1, SLICE):
        last = min(first + SLICE - 1, rows)
        for statement in (_RUNS, _DECISIONS):
            await connection.execute(statement, since, until, rows, first, last)


async def _compare(server: EmbeddedServer, settings: DatabaseSettings) -> None:
    found: list[Diagnosis] = []

    async def examine() -> None:
        found.append(await diagnose(settings))

    async def look() -> None:
        async with open_database(server, NAME) as connection:
            for statement in _CATALOG:
                await connection.fetch(statement)

    own, floor = [], []
    for _ in range(TIMES):
        floor.append(await _seconds(look))
        own.append(await _seconds(examine))
    ours, least = statistics.median(own), statistics.median(floor)
    print(
        f"doctor: {ours:.2f} s (goal {GOAL_SECONDS:.0f}), from {min(own):.2f} to {max(own):.2f} in "
        f"{TIMES} rounds; a connection, SELECT 1 and two looks at the catalog by the plain "
        f"driver: {least:.3f} s, {ours / least:.0f} times less"
    )
    counts = Counter(str(finding.severity) for finding in found[-1].findings)
    print(f"  it found: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    for finding in found[-1].findings:
        if finding.severity > Severity.NOTICE:
            print(f"  {finding.check}: {finding.words}")


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _time_command(settings: DatabaseSettings) -> None:
    """Compare the command with one that does nothing: the rest is the start of Python."""
    assert settings.database_url is not None  # noqa: S101 (the server has one)
    variables = {"AGENTOBS_DATABASE_URL": settings.database_url.get_secret_value()}
    doctor, nothing = [], []
    for _ in range(COMMANDS):
        nothing.append(_seconds_of("--version", variables))
        doctor.append(_seconds_of("doctor", variables))
    print(
        f"`agentobs doctor`: {statistics.median(doctor):.2f} s, `agentobs --version`: "
        f"{statistics.median(nothing):.2f} s"
    )


def _seconds_of(argument: str, variables: dict[str, str]) -> float:
    program = Path(sys.executable).with_name("agentobs")
    began = time.perf_counter()
    subprocess.run([program, argument], env=variables, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
