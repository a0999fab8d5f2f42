"""Measure dashboards with rollups beside the same in raw SQL, and what the triggers cost a COPY.

Run with `make bench` for a million rows in each event table and a tenth of that, with
`make bench-large` for ten million. Rows are of the last thirty days, made by SQL. Each question is
asked as a service asks it, through the analytics; beside it stands plain SQL over the rows, on the
same connection, in turns. Goals: below 50 ms from rollups, a COPY at 0.97 of one without triggers,
and a trace of 200 events below 10 ms over 24 partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agentobs import DatabaseSettings, create_engine, migrations
from agentobs.analytics import Window, agents, routing, trace
from agentobs.analytics.performance import select_agents
from agentobs.analytics.router import select_routing
from agentobs.maintenance import Policy, maintain
from benchmarks import workload
from benchmarks.growth import open_database, settings_of
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    from agentobs.embedded import EmbeddedServer

    Ask = Callable[[AsyncSession], Awaitable[Any]]

DAYS = 30
HOUR = timedelta(hours=1)
TIMES, RAW_TIMES, ROUNDS = 15, 3, 9
COPIED = 20_000
AGENTS = 24
TRACED, MONTHS = 200, 24
BYTES_A_PAIR = 700
COPY_SUBJECTS = ("with_triggers", "without")
METRICS = "router_performance_metrics"

_DECISIONS = f"""
    INSERT INTO {METRICS} (id, metric_type, selected_agent, confidence_score, cache_lookup_us,
        trigger_matching_us, confidence_scoring_us, total_routing_time_us, cache_hit,
        cache_age_seconds, measured_at)
    SELECT agentobs_uuid7_at(at), 'routing_decision', 'agent-' || floor(power(random(), 2) * 24),
        0.82, 80 * exp(random() * 2), 900 * exp(random() * 3), 700 * exp(random() * 2),
        1000 * exp(random() * 4.5), n % 3 <> 0, n % 3600, at
    FROM (SELECT n, $1::timestamptz + ($2::timestamptz - $1) * (n / $3::float) AS at
          FROM generate_series(1, $3::integer) AS n) AS numbered
"""  # noqa: S608
_RUNS = """
    INSERT INTO agent_transformation_events (id, event_type, correlation_id, target_agent,
        total_execution_duration_ms, success, quality_score, started_at)
    SELECT agentobs_uuid7_at(at), 'transformation_complete', gen_random_uuid(),
        'agent-' || floor(power(random(), 2) * 24), 100 * exp(random() * 6), random() < 0.9,
        random(), at
    FROM (SELECT n, $1::timestamptz + ($2::timestamptz - $1) * (n / $3::float) AS at
          FROM generate_series(1, $3::integer) AS n) AS numbered
"""
_WORKFLOW = """
    INSERT INTO agent_transformation_events (id, event_type, correlation_id, target_agent,
        parent_event_id, total_execution_duration_ms, success, started_at, completed_at)
    SELECT agentobs_uuid7_at(at), 'transformation_complete', $1, 'agent-' || n % 24, NULL, 5, true,
        at, at + interval '1 second'
    FROM (SELECT n, $2::timestamptz + n * interval '1 second' AS at
          FROM generate_series(1, $3::integer) AS n) AS numbered
"""


def main() -> None:
    """Print what questions take, and what a COPY loses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    rows = parser.parse_args().rows
    print(f"this takes up to {2.5 * sum(rows) * BYTES_A_PAIR / 1e9:.0f} GB of disk")
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(server, rows))


async def _measure(server: EmbeddedServer, sizes: list[int]) -> None:
    await _compare_copy(server)
    for rows in sizes:
        settings = await _filled(server, rows)
        await _ask_all(settings)
    await _trace(server)


async def _database(server: EmbeddedServer, name: str) -> DatabaseSettings:
    async with open_database(server, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    settings = settings_of(server, name)
    await migrations.upgrade(settings=settings)
    return settings


async def _filled(server: EmbeddedServer, rows: int) -> DatabaseSettings:
    name = f"rows_{rows}"
    settings = await _database(server, name)
    until = datetime.now(UTC)
    since = until - timedelta(days=DAYS)
    async with open_database(server, name) as connection:
        # Months behind this one are made before their rows, as they were in their time.
        await connection.execute(_DECISIONS, since, since + HOUR, 1)
        await connection.execute(_RUNS, since, since + HOUR, 1)
        await maintain(settings=settings)
        for statement in (_DECISIONS, _RUNS):
            await connection.execute(statement, since, until, rows)
        await connection.execute("VACUUM (ANALYZE)")
    began = time.perf_counter()
    await maintain(settings=settings)
    seconds = time.perf_counter() - began
    print(f"\n{rows:,} rows in each table, folded in {seconds:.0f} s")
    return settings


async def _ask_all(settings: DatabaseSettings) -> None:
    until = datetime.now(UTC)
    whole = Window(until.replace(minute=0, second=0, microsecond=0) - timedelta(days=DAYS), until)
    engine = create_engine(settings)
    async with AsyncSession(engine) as session:
        await _ask(
            session,
            "routing series, 720 hours",
            lambda session: routing(session, whole, HOUR),
            lambda session: session.execute(select_routing(whole, HOUR)),
        )
        await _ask(
            session,
            "agents, 30 days",
            lambda session: agents(session, whole),
            lambda session: session.execute(select_agents(whole)),
        )
    await engine.dispose()


async def _ask(session: AsyncSession, name: str, folded: Ask, raw: Ask) -> None:
    # Warm: the statements are prepared, and the pages read.
    await _timed(session, folded, 6)
    slow = await _timed(session, raw, RAW_TIMES)
    fast = await _timed(session, folded, TIMES)
    print(
        f"  {name:<26} {1000 * fast:8.1f} ms from rollups (goal 50)   "
        f"{1000 * slow:8.0f} ms in raw SQL   {slow / fast:6.0f} x"
    )


async def _timed(session: AsyncSession, ask: Ask, times: int) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await ask(session)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


async def _compare_copy(server: EmbeddedServer) -> None:
    """Compare COPY of open hours with the triggers and without them, in turns."""
    definitions = workload.definitions()
    for name in COPY_SUBJECTS:
        await _prepare_copy(server, name, definitions)
    watched, free = (open_database(server, name) for name in COPY_SUBJECTS)
    async with watched as one, free as other:
        for table, rows in _loads(definitions):
            await _drop_triggers(other, table)
            times: dict[str, list[float]] = {"with": [], "without": []}
            for _ in range(ROUNDS):
                times["without"].append(await _copy(other, table, rows))
                times["with"].append(await _copy(one, table, rows))
            ratios = [
                without / own for own, without in zip(times["with"], times["without"], strict=True)
            ]
            print(
                f"COPY into {table}: {statistics.median(ratios):.3f} x without triggers "
                f"(goal 0.97), from {min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds"
            )


async def _prepare_copy(server: EmbeddedServer, name: str, definitions: list[workload.Row]) -> None:
    settings = await _database(server, name)
    async with open_database(server, name) as connection:
        await connection.copy_records_to_table(
            "agent_definitions",
            columns=list(definitions[0]),
            records=workload.records(definitions),
        )
        # Once hours have closed, each row asks where the open ones begin.
        old = datetime.now(UTC) - 3 * HOUR
        await connection.execute(_DECISIONS, old, old + HOUR, 1)
    await maintain(settings=settings)


def _loads(definitions: list[workload.Row]) -> list[tuple[str, list[workload.Row]]]:
    now = datetime.now(UTC)
    span = workload.Span(now - timedelta(minutes=1), now)
    return [
        (METRICS, list(workload.metrics(COPIED, span))),
        (
            "agent_transformation_events",
            list(workload.events(COPIED, span, agents=definitions)),
        ),
    ]


async def _drop_triggers(connection: asyncpg.Connection, table: str) -> None:
    for moment in ("inserted", "updated", "deleted"):
        await connection.execute(f"DROP TRIGGER trigger_{table}_rollups_{moment} ON {table}")


async def _copy(connection: asyncpg.Connection, table: str, rows: list[workload.Row]) -> float:
    await connection.execute(f"TRUNCATE {table}")
    await connection.execute("CHECKPOINT")
    columns = list(rows[0])
    batches = [workload.records(part) for part in workload.batches(rows)]
    began = time.perf_counter()
    for records in batches:
        await connection.copy_records_to_table(table, columns=columns, records=records)
    return time.perf_counter() - began


async def _trace(server: EmbeddedServer) -> None:
    """Compare a trace with the two selects that it can't do without."""
    settings = await _database(server, "traced")
    await maintain(Policy(ahead=MONTHS - 1), settings=settings)
    workflow = await _add_workflow(server)
    engine = create_engine(settings)
    async with AsyncSession(engine) as session:
        both = [
            text(f"SELECT * FROM {table} WHERE correlation_id = :workflow").bindparams(  # noqa: S608
                workflow=workflow
            )
            for table in ("agent_transformation_events", METRICS)
        ]

        async def plain(session: AsyncSession) -> None:
            for statement in both:
                (await session.execute(statement)).all()

        await _timed(session, lambda session: trace(session, workflow), 6)
        floor = await _timed(session, plain, TIMES)
        ours = await _timed(session, lambda session: trace(session, workflow), TIMES)
    await engine.dispose()
    print(
        f"\ntrace of {TRACED} events over {MONTHS} partitions: {1000 * ours:.1f} ms (goal 10), "
        f"two plain selects {1000 * floor:.1f} ms"
    )


async def _add_workflow(server: EmbeddedServer) -> Any:
    async with open_database(server, "traced") as connection:
        workflow = await connection.fetchval("SELECT gen_random_uuid()")
        began = datetime.now(UTC) - timedelta(minutes=5)
        await connection.execute(_RUNS, began - HOUR, began, 10_000)
        await connection.execute(_WORKFLOW, workflow, began, TRACED)
        await connection.execute("VACUUM (ANALYZE)")
    return workflow


if __name__ == "__main__":
    main()
