"""Measure how long maintenance keeps writers and readers waiting, on one server in one run.

Writers and readers go on with short pauses, so that the machine has room for maintenance: by
themselves first, and then beside each step of `maintain --apply`. A line tells the longest
statement of each, and of how many; the goal is that none waits for more than 250 ms. Commits are
told apart: they take no lock, but wait for a disk that the archive is written to as well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from sqlalchemy import text

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    Database,
    DatabaseSettings,
    migrations,
)
from agentobs.bulk import copy_rows
from agentobs.maintenance import Month
from agentobs.maintenance.months import SLACK
from benchmarks.server import environment, fresh_server
from benchmarks.workload import Span, as_values, batches, definitions, events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from agentobs.embedded import EmbeddedServer
    from benchmarks.workload import Row

    Statement = Callable[[], Awaitable[object]]

GOAL_MS = 250
WRITERS, READERS = 3, 2
ROWS, PAUSE_SECONDS = 10, 0.05
OLD = Month(2024, 1)
# In the order in which they are used: expired, rewritten, drained.
EXPIRED, REWRITTEN, DRAINED = OLD, OLD.next(), OLD.next().next()
READS = (
    "SELECT count(*) FROM agent_transformation_events WHERE id >= agentobs_uuid7_floor(now())",
    "SELECT id FROM agent_transformation_events ORDER BY id DESC LIMIT 50",
    "SELECT agent_name FROM agent_definitions WHERE is_active",
)


@dataclass
class Longest:
    """The longest statement of a kind, and how many there were."""

    seconds: float = 0.0
    statements: int = 0

    def note(self, seconds: float) -> None:
        """Note one."""
        self.seconds = max(self.seconds, seconds)
        self.statements += 1

    def __str__(self) -> str:
        return f"{self.seconds * 1000:6.1f} ms of {self.statements:>6,}"


@dataclass
class Traffic:
    """Writers and readers, and what their longest statements were."""

    db: Database
    agents: Sequence[Row]
    writes: Longest = field(default_factory=Longest)
    reads: Longest = field(default_factory=Longest)
    commits: Longest = field(default_factory=Longest)
    """They take no lock: what they wait for is the disk."""

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Let it flow for the block."""
        works = [self._writer(number) for number in range(WRITERS)]
        works += [self._reader(number) for number in range(READERS)]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _writer(self, number: int) -> None:
        async with self.db.connection() as connection:
            for seed in count(number, WRITERS):
                rows = self._rows(seed)
                async with connection.begin() as transaction:
                    write = partial(copy_rows, connection, AgentTransformationEvent, rows)
                    await _timed(self.writes, write)
                    await _timed(self.commits, transaction.commit)
                await asyncio.sleep(PAUSE_SECONDS)

    def _rows(self, seed: int) -> list[Row]:
        now = datetime.now(UTC)
        span = Span(now, now + timedelta(seconds=1))
        return [as_values(row) for row in events(ROWS, span, seed=seed, agents=self.agents)]

    async def _reader(self, number: int) -> None:
        async with self.db.connection() as connection:
            for turn in count(number):
                statement = text(READS[turn % len(READS)])
                await _timed(self.reads, partial(_read, connection, statement))
                await asyncio.sleep(PAUSE_SECONDS)


def main() -> None:
    """Measure on a fresh embedded server with its default, durable settings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="of an old month")
    parser.add_argument("--drained", type=int, default=9_000, help="of the month in DEFAULT")
    options = parser.parse_args()
    with fresh_server() as server:
        print(f"{environment(server)}; {WRITERS} writers of {ROWS} rows, {READERS} readers")
        asyncio.run(_measure(server, options.rows, options.drained))


async def _measure(server: EmbeddedServer, rows: int, drained: int) -> None:
    settings = DatabaseSettings(database_url=SecretStr(server.url))
    await migrations.upgrade(settings=settings)
    async with Database(settings) as db:
        agents = definitions()
        await _store(db, AgentDefinition, agents)
        for month in (EXPIRED, REWRITTEN):
            await _fill(db, month, 1, agents)
        # The other rows go straight into the months that are made for these.
        await _maintain(server.url)
        for month in (EXPIRED, REWRITTEN):
            await _fill(db, month, rows - 1, agents, seed=2)
        await _fill(db, DRAINED, drained, agents)
        await _report(Traffic(db, agents), "without maintenance", partial(asyncio.sleep, 10))
        with tempfile.TemporaryDirectory() as folder:
            for name, arguments in _steps(folder):
                work = partial(_maintain, server.url, "--ahead", "5", *arguments)
                await _report(Traffic(db, agents), name, work)


def _steps(folder: str) -> list[tuple[str, list[str]]]:
    archive = ["--archive", folder]
    return [
        (f"drain {DRAINED}, make months", []),
        (f"rewrite {REWRITTEN}", ["--keep-payload", _age_of(REWRITTEN), *archive]),
        (f"expire {EXPIRED}", ["--keep", _age_of(EXPIRED), *archive]),
    ]


def _age_of(month: Month) -> str:
    """Return the age to keep with which the month goes, and none that is younger."""
    return f"{(datetime.now(UTC) - (month.end + SLACK)).days}d"


async def _maintain(url: str, *arguments: str) -> None:
    """Run the command in a process of its own, as cron does."""
    command = [sys.executable, "-m", "agentobs", "maintain", "--apply", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"AGENTOBS_DATABASE_URL": url}
    )
    if code := await process.wait():
        raise SystemExit(f"agentobs maintain ended with {code}")


async def _report(traffic: Traffic, name: str, work: Statement) -> None:
    print(f"{name}:", flush=True)
    began = time.perf_counter()
    async with traffic.flowing():
        await work()
    took = time.perf_counter() - began
    worst = max(traffic.writes.seconds, traffic.reads.seconds) * 1000
    verdict = "reached" if worst <= GOAL_MS else "MISSED"
    print(
        f"  {took:5.1f} s; longest write {traffic.writes}, read {traffic.reads}, "
        f"commit {traffic.commits} "
        f"(goal <= {GOAL_MS} ms: {verdict})",
        flush=True,
    )


async def _fill(
    db: Database, month: Month, rows: int, agents: Sequence[Row], *, seed: int = 1
) -> None:
    span = Span(month.first, month.end)
    await _store(db, AgentTransformationEvent, events(rows, span, agents=agents, seed=seed))


async def _store(db: Database, model: type[Any], rows: Iterable[Row]) -> None:
    for batch in batches(rows):
        async with db.connection() as connection, connection.begin():
            await copy_rows(connection, model, [as_values(row) for row in batch])


async def _timed(longest: Longest, statement: Statement) -> None:
    began = time.perf_counter()
    await statement()
    longest.note(time.perf_counter() - began)


async def _read(connection: Any, statement: Any) -> None:
    await connection.execute(statement)
    await connection.rollback()


if __name__ == "__main__":
    main()
