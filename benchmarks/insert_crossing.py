"""Measure from how many rows on COPY is faster than an INSERT with the VALUES of all of them.

Run with `python -m benchmarks.insert_crossing`. Both go into the tables at head as a recorder's
writer sends them: on one connection, each batch a transaction by itself, whose statements are
prepared already. The time of this process is that in which its other threads wait for Python.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool, text

from agentobs import (
    AgentTransformationEvent,
    DatabaseSettings,
    RouterPerformanceMetric,
    create_engine,
    migrations,
)
from agentobs.bulk import copy_records
from agentobs.recorder.writing.statements import insert_values
from benchmarks import workload
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.models import Base

    Records = Sequence[tuple[Any, ...]]
    Way = Callable[[AsyncConnection, type[Base], Sequence[str], Records], Awaitable[object]]

SIZES = (1, 2, 5, 10, 20, 50, 100, 200)
ROUNDS = 50
WAYS: Mapping[str, Way] = {"INSERT": insert_values, "COPY": copy_records}


@dataclass(frozen=True)
class Load:
    """Rows of one table, taken one after another."""

    model: type[Base]
    columns: list[str]
    records: Iterator[tuple[Any, ...]]

    def take(self, count: int) -> list[tuple[Any, ...]]:
        """Return the next rows."""
        return list(islice(self.records, count))


def main() -> None:
    """Print what a batch of each size costs by either way."""
    with fresh_server() as server:
        print(environment(server))
        asyncio.run(_measure(DatabaseSettings(database_url=server.url)))


async def _measure(settings: DatabaseSettings) -> None:
    await migrations.upgrade(settings=settings)
    engine = create_engine(settings, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for load in _loads():
            await _compare(connection, load)
    await engine.dispose()


def _loads() -> Iterator[Load]:
    now = datetime.now(UTC)
    span = workload.Span(now - timedelta(minutes=5), now)
    # One more for the round that prepares the statements.
    count = sum(SIZES) * len(WAYS) * (ROUNDS + 1)
    yield _load(AgentTransformationEvent, list(workload.events(count, span)))
    yield _load(RouterPerformanceMetric, list(workload.metrics(count, span)))


def _load(model: type[Base], rows: list[workload.Row]) -> Load:
    return Load(model, list(rows[0]), iter(workload.records(rows)))


async def _compare(connection: AsyncConnection, load: Load) -> None:
    name = load.model.__tablename__
    print(f"{name}, {len(load.columns)} columns: ms for a batch, median of {ROUNDS}")
    print("  rows    INSERT      COPY   of this process: INSERT      COPY")
    for size in SIZES:
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS + 1):
            for way in WAYS:
                found[way].append(await _batch(connection, load, way, size))
        waited, used = (
            [1000 * statistics.median(pair[place] for pair in found[way][1:]) for way in WAYS]
            for place in (0, 1)
        )
        print(f"  {size:>4} {_figures(waited)} {'':>16} {_figures(used)}")
        # What GIN indexes put off is done between the sizes, not within some of them.
        await connection.execute(text(f"VACUUM {name}"))


async def _batch(
    connection: AsyncConnection, load: Load, way: str, size: int
) -> tuple[float, float]:
    records = load.take(size)
    began, began_here = time.perf_counter(), time.thread_time()
    await WAYS[way](connection, load.model, load.columns, records)
    return time.perf_counter() - began, time.thread_time() - began_here


def _figures(values: Sequence[float]) -> str:
    return " ".join(f"{value:>9.2f}" for value in values)


if __name__ == "__main__":
    main()
