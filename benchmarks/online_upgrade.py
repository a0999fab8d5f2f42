"""Measure the way from 0003 to head under writers, and the adoption of the same tables.

Run with `make bench`. A million rows in each event table, and writers at 500 rows/s beside: how
long the longest of their statements took, beside the longest in as much time without an upgrade.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg

from agentobs import migrations
from agentobs.settings import DatabaseSettings
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from agentobs.embedded import EmbeddedServer

WRITERS = 5
ROWS_PER_SECOND = 500
GOAL_SECONDS = 1.0
_QUIET_SECONDS = 20.0
# Two years of rows, as old code wrote them: random keys, a context of about 400 bytes.
_FILL = [
    """
    INSERT INTO agent_transformation_events
        (id, event_type, correlation_id, source_agent, target_agent, context_snapshot,
         routing_confidence, total_execution_duration_ms, success, quality_score, started_at)
    SELECT gen_random_uuid(), 'transformation_complete', md5('w' || n / 8)::uuid,
           'agent-' || n % 11, 'agent-' || n % 37,
           jsonb_build_object('n', n, 'text', repeat(md5(n::text), 10), 'tag', n % 7),
           (n % 100) / 100.0, n % 90000, n % 9 > 0, (n % 97) / 97.0,
           now() - (:rows - n) * (interval '700 days' / :rows)
    FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO router_performance_metrics
        (id, metric_type, correlation_id, selected_agent, confidence_score, alternative_agents,
         total_routing_time_us, cache_hit, measured_at)
    SELECT gen_random_uuid(), 'routing_decision', md5('w' || n / 8)::uuid, 'agent-' || n % 37,
           (n % 100) / 100.0, jsonb_build_array(jsonb_build_object('agent', 'agent-' || n % 13)),
           n % 150000, n % 3 = 0, now() - (:rows - n) * (interval '700 days' / :rows)
    FROM generate_series(1, :rows) AS n
    """,
]
_BEGIN = """
    INSERT INTO agent_transformation_events
        (event_type, correlation_id, target_agent, parent_event_id, context_snapshot)
    VALUES ('transformation_start', $1, 'agent-1', $2, '{"a": 1}') RETURNING id
"""
_END = "UPDATE agent_transformation_events SET success = true, completed_at = now() WHERE id = $1"
_DECIDE = """
    INSERT INTO router_performance_metrics (metric_type, correlation_id, total_routing_time_us)
    VALUES ('routing_decision', $1, 900)
"""


@dataclass
class Writers:
    """Writers as the hand-rolled pool's users wrote them: what they waited, what failed."""

    url: str
    waits: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        """Write until stopped, each writer its share, at an even pace."""
        await asyncio.gather(*(self._write() for _ in range(WRITERS)))

    async def _write(self) -> None:
        connection = await asyncpg.connect(self.url)
        pause, parent = WRITERS * 3 / ROWS_PER_SECOND, None
        try:
            while not self.stopped:
                began = time.perf_counter()
                workflow = uuid4()
                parent = await self._timed(connection.fetchval(_BEGIN, workflow, parent))
                await self._timed(connection.execute(_DECIDE, workflow))
                await self._timed(connection.execute(_END, parent))
                await asyncio.sleep(max(0.0, pause - (time.perf_counter() - began)))
        finally:
            await connection.close()

    async def _timed(self, statement: object) -> object:
        began = time.perf_counter()
        try:
            return await statement  # type: ignore[misc]
        except asyncpg.PostgresError as error:
            self.errors.append(f"{error.sqlstate} {error}")
            return None
        finally:
            self.waits.append((began, time.perf_counter() - began))

    def longest(self, since: float, until: float) -> float:
        """Return the longest wait of a statement that ran between the two moments."""
        return max(
            (wait for began, wait in self.waits if began < until and began + wait > since),
            default=0.0,
        )


def main() -> None:
    """Measure on a fresh embedded server with its default, durable settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(server, rows))


async def _measure(server: EmbeddedServer, rows: int) -> None:
    settings = DatabaseSettings(database_url=server.url)
    await _fill(settings, server.url, rows)
    began = time.perf_counter()
    await migrations.adopt(settings=settings)
    print(f"adoption of {rows:,} + {rows:,} rows: {time.perf_counter() - began:.2f} s")
    writers = Writers(server.url)
    writing = asyncio.create_task(writers.run())
    quiet = time.perf_counter()
    await asyncio.sleep(_QUIET_SECONDS)
    began = time.perf_counter()
    await migrations.upgrade_online(settings=settings)
    ended = time.perf_counter()
    await asyncio.sleep(1)
    writers.stopped = True
    await writing
    _report(writers, quiet, began, ended)


def _report(writers: Writers, quiet: float, began: float, ended: float) -> None:
    before, during = writers.longest(quiet, began), writers.longest(began, ended)
    written = sum(1 for at, _ in writers.waits if began <= at < ended)
    median = statistics.median(wait for _, wait in writers.waits)
    verdict = "reached" if during <= GOAL_SECONDS and not writers.errors else "MISSED"
    print(
        f"0003 to head in {ended - began:.0f} s beside {written / (ended - began):.0f} rows/s: "
        f"longest wait of a writer {during:.3f} s (goal {GOAL_SECONDS:.0f} s: {verdict}), "
        f"{before:.3f} s in {_QUIET_SECONDS:.0f} s without one, median {median * 1e3:.1f} ms; "
        f"errors {len(writers.errors)} {writers.errors[:3]}"
    )


async def _fill(settings: DatabaseSettings, url: str, rows: int) -> None:
    await migrations.upgrade("0003", settings=settings)
    connection = await asyncpg.connect(url)
    for statement in _FILL:
        await connection.execute(statement.replace(":rows", str(rows)))
    await connection.execute("DROP TABLE agentobs_alembic_version")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


if __name__ == "__main__":
    main()
