"""Measure how many records a second go through a recorder, beside COPY written by hand.

Run with `make bench`. All start from the same Python objects and end when the last row is
committed, in one process, into head. Goals: events 0.8 x the hand-written COPY, metrics 0.45 x;
8 x one INSERT a row, 4 x the same over 20 connections; with a spool half of that without.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from agentobs import DatabaseSettings, migrations
from agentobs.recorder import Recorder
from benchmarks import recorder_records as records
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agentobs.embedded import EmbeddedServer

Delivery = Literal["drop", "block", "spool"]
ROUNDS = 3
ROWS, SINGLE_ROWS = 40_000, 3_000
BATCH, CONNECTIONS = 2_000, 20
EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"
GOALS = {EVENTS: 0.8, METRICS: 0.45}


class Subject:
    """One table: its records, and how a row of it is written by hand."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.is_event = table == EVENTS
        self.columns = records.EVENT_COLUMNS if self.is_event else records.METRIC_COLUMNS
        self.nested = records.Nested(ROWS) if self.is_event else None
        self.decisions = [] if self.is_event else records.decisions(ROWS)

    def record(self, recorder: Recorder) -> None:
        """Record everything."""
        if self.nested is not None:
            for event in self.nested:
                self.nested.note(recorder.record(event))
        for decision in self.decisions:
            recorder.routing_decision(decision)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Write the rows by hand, one by one."""
        if self.nested is not None:
            for event in self.nested:
                row = records.event_row(event)
                self.nested.note(row[0])
                yield row
        for decision in self.decisions:
            yield records.metric_row(decision)


def main() -> None:
    """Print rows a second of each way, and the ratios."""
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(migrations.upgrade(settings=DatabaseSettings(database_url=server.url)))
        for table in (EVENTS, METRICS):
            _compare(server, Subject(table))


def _compare(server: EmbeddedServer, subject: Subject) -> None:
    ways: dict[str, Callable[[], float]] = {
        "by hand": lambda: asyncio.run(_by_hand(server, subject)),
        "recorder": lambda: _recorded(server, subject, "block"),
        "spool": lambda: _recorded(server, subject, "spool"),
        "one by one": lambda: asyncio.run(_single(server, subject, 1)),
        "20 connections": lambda: asyncio.run(_single(server, subject, CONNECTIONS)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, measure in ways.items():
            asyncio.run(_empty(server, subject.table))
            rates[name].append(measure())
    _print(subject.table, rates)


def _print(table: str, rates: dict[str, list[float]]) -> None:
    print(f"{table}, {ROWS:,} records: median of {ROUNDS}")
    for name, found in rates.items():
        print(f"  {name:<14} {statistics.median(found):>9,.0f} rows/s")
    for one, other, goal in (
        ("recorder", "by hand", GOALS[table]),
        ("recorder", "one by one", 8),
        ("recorder", "20 connections", 4),
        ("spool", "recorder", 0.5),
    ):
        print(f"  {one} is {_ratio(rates[one], rates[other]):.2f} x {other} (goal {goal})")


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _recorded(server: EmbeddedServer, subject: Subject, delivery: Delivery) -> float:
    settings = DatabaseSettings(database_url=server.url)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(
            settings, delivery=delivery, lenient=False, folder=Path(folder), close_timeout=300
        )
        recorder.start()
        began = time.perf_counter()
        subject.record(recorder)
        report = recorder.close()
        seconds = time.perf_counter() - began
        written = sum(recorder.statistics().written.values())
    if not report.is_complete or written != ROWS:
        raise RuntimeError(f"{written} of {ROWS} were written: {report}")
    return ROWS / seconds


async def _by_hand(server: EmbeddedServer, subject: Subject) -> float:
    connection = await asyncpg.connect(_dsn(server))
    began = time.perf_counter()
    for batch in _batches(subject.rows()):
        await connection.copy_records_to_table(
            subject.table, columns=subject.columns, records=batch
        )
    seconds = time.perf_counter() - began
    await connection.close()
    return ROWS / seconds


async def _single(server: EmbeddedServer, subject: Subject, connections: int) -> float:
    """Insert row by row, the way that the recorder replaces."""
    marks = ", ".join(f"${number}" for number in range(1, len(subject.columns) + 1))
    statement = f"INSERT INTO {subject.table} ({', '.join(subject.columns)}) VALUES ({marks})"  # noqa: S608
    async with asyncpg.create_pool(
        _dsn(server), min_size=connections, max_size=connections
    ) as pool:
        rows = [row for row, _ in zip(subject.rows(), range(SINGLE_ROWS), strict=False)]
        if subject.is_event:
            # Over many connections a child may come before its parent.
            place = subject.columns.index("parent_event_id")
            rows = [(*row[:place], None, *row[place + 1 :]) for row in rows]
        turns = iter(rows)

        async def insert() -> None:
            for row in turns:
                await pool.execute(statement, *row)

        began = time.perf_counter()
        await asyncio.gather(*(insert() for _ in range(connections)))
        return SINGLE_ROWS / (time.perf_counter() - began)


async def _empty(server: EmbeddedServer, table: str) -> None:
    connection = await asyncpg.connect(_dsn(server))
    await connection.execute(f"TRUNCATE {table}")
    await connection.execute("CHECKPOINT")
    await connection.close()


def _batches(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _dsn(server: EmbeddedServer) -> str:
    return server.url.replace("+asyncpg", "").replace("+psycopg", "")


if __name__ == "__main__":
    main()
