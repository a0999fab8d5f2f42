"""Measure what each index costs on insert and on disk, on prototypes of the two big tables.

`python -m benchmarks.indexes [rounds]` (about five minutes). Every candidate is measured as the set
with it against the set without it, one right after the other, because machines are noisy: the cost
is the median over the rounds, and the time of the server's process tells more than the clock. A
pass makes empty tables, copies rows in batches, and empties the pending lists of GIN indexes within
the measured time, since that work is owed for the rows as well. The GIN index costs as much as all
else together, so the others are measured beside a set that lacks it.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil

from benchmarks import workload
from benchmarks.prototypes import (
    EVENTS,
    METRICS,
    NO_INDEXES,
    Indexes,
    Kind,
    as_it_was,
    bare,
    definitions_table,
    partitioned,
)
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentobs.embedded import EmbeddedServer

ROUNDS = 3
ROWS = 14_000
SCHEMA = "prototype"
MONTHS = workload.months(datetime(2026, 1, 1, tzinfo=UTC), 13)
# A writer's rows go to one month.
NOW = workload.Span(datetime(2026, 12, 5, tzinfo=UTC), datetime(2026, 12, 15, tzinfo=UTC))

LEGACY_EVENTS = Indexes(
    {
        "correlation": "(correlation_id)",
        "session": "(session_id)",
        "target": "(target_agent)",
        "source": "(source_agent)",
        "type": "(event_type)",
        "started_at": "(started_at DESC)",
        "success_time": "(success, started_at DESC) WHERE success IS NOT NULL",
        "performance": "(target_agent, total_execution_duration_ms, quality_score)",
        "context": "USING gin (context_snapshot)",
        "parent": "(parent_event_id) WHERE parent_event_id IS NOT NULL",
        "definition": "(agent_definition_id) WHERE agent_definition_id IS NOT NULL",
    }
)
LEGACY_METRICS = Indexes(
    {
        "measured_at": "(measured_at DESC)",
        "type_time": "(metric_type, measured_at DESC)",
        "agent_time": "(selected_agent, measured_at DESC)",
        "correlation": "(correlation_id) WHERE correlation_id IS NOT NULL",
        "cache": "(cache_hit, cache_age_seconds) WHERE cache_hit IS NOT NULL",
        "timing": "(total_routing_time_us, measured_at DESC)",
        "prediction": (
            "(confidence_score, actual_quality_score, prediction_error) "
            "WHERE selection_validated = TRUE"
        ),
        "request_hash": "(user_request_hash, context_hash)",
        "alternatives": "USING gin (alternative_agents)",
        "feedback": "(feedback_provided, feedback_type) WHERE feedback_provided = TRUE",
    }
)
_BRIN = "WITH (pages_per_range = 32, autosummarize = on)"
_PATHS = "USING gin (context_snapshot jsonb_path_ops)"
HEAD_EVENTS = Indexes(
    {
        "correlation": "(correlation_id)",
        "session": "(session_id)",
        "target_newest": "(target_agent, id)",
        "started_at_brin": f"USING brin (started_at) {_BRIN}",
        "context_paths": _PATHS,
        "parent": "(parent_event_id) WHERE parent_event_id IS NOT NULL",
        "definition": "(agent_definition_id) WHERE agent_definition_id IS NOT NULL",
    }
)
HEAD_METRICS = Indexes(
    {
        "agent_newest": "(selected_agent, id)",
        "measured_at_brin": f"USING brin (measured_at) {_BRIN}",
        "correlation": "(correlation_id) WHERE correlation_id IS NOT NULL",
        "feedback_newest": "(feedback_type, id) WHERE feedback_provided",
    }
)
# Other forms of an index at head, beside those that legacy indexes have, and one that was weighed.
OTHER_EVENTS = {
    "correlation": ["USING hash (correlation_id)"],
    "session": ["USING hash (session_id)"],
    "context_paths": [
        f"{_PATHS} WITH (gin_pending_list_limit = 1024)",
        f"{_PATHS} WITH (gin_pending_list_limit = 256)",
        f"{_PATHS} WITH (fastupdate = off)",
    ],
    "parent": ["USING hash (parent_event_id)"],
}
OTHER_METRICS = {
    "correlation": ["USING hash (correlation_id)"],
    "request": ["USING hash (user_request_hash)"],
}
# What took the place of a legacy index, which is measured without it.
SUCCESSORS = {
    "target": "target_newest",
    "started_at": "started_at_brin",
    "context": "context_paths",
    "agent_time": "agent_newest",
    "measured_at": "measured_at_brin",
    "feedback": "feedback_newest",
}
METRIC_STORAGE = "WITH (fillfactor = 90)"


@dataclass(frozen=True)
class Pass:
    """What one pass took; `cpu` is the time of the server's process for this connection."""

    seconds: float
    cpu: float
    wal_bytes: float
    index_bytes: float


@dataclass(frozen=True)
class Rows:
    """Records for COPY, and the columns that they are of."""

    columns: tuple[str, ...]
    records: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Setup:
    """Tables to make, and the rows that go in."""

    statements: tuple[str, ...]
    kind: Kind
    rows: Rows


@dataclass(frozen=True)
class Candidate:
    """An index, in the set that has it and in the set that lacks it."""

    name: str
    definition: str
    having: Setup
    lacking: Setup


@dataclass(frozen=True)
class Price:
    """What an index costs a row: the share of the time of COPY, WAL and disk."""

    candidate: Candidate
    pairs: list[tuple[Pass, Pass]]
    wal_bytes: float
    index_bytes: float

    def line(self) -> str:
        """Return the price as a line of the report."""
        times = [having.seconds / lacking.seconds for having, lacking in self.pairs]
        cpu = statistics.median(having.cpu - lacking.cpu for having, lacking in self.pairs)
        low, middle, high = (
            100 * (bound - 1) for bound in (min(times), statistics.median(times), max(times))
        )
        return (
            f"{self.candidate.name:<16} time {middle:+4.0f} % ({low:+.0f} … {high:+.0f})  "
            f"CPU {1e6 * cpu / ROWS:+5.1f} us a row  {self.index_bytes:6.1f} bytes a row  "
            f"WAL {self.wal_bytes:+6.0f}  {self.candidate.definition}"
        )


def main() -> None:
    """Measure on a fresh embedded server with its default, durable settings."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with fresh_server() as server:
        print(f"{environment(server)}; {rounds} rounds of {ROWS:,} rows, batches of 2,000")
        asyncio.run(_measure(server, rounds))


async def _measure(server: EmbeddedServer, rounds: int) -> None:
    connection = await asyncpg.connect(server.url)
    for kind in (EVENTS, METRICS):
        print(f"\n{kind.table}")
        await _compare_sets(connection, kind, rounds)
        for price in await _prices(connection, candidates(kind), rounds):
            print(price.line(), flush=True)
    await connection.close()


def candidates(kind: Kind) -> list[Candidate]:
    """Return the indexes of head, their other forms, and what head has no more."""
    head = HEAD_EVENTS if kind is EVENTS else HEAD_METRICS
    legacy = LEGACY_EVENTS if kind is EVENTS else LEGACY_METRICS
    others = OTHER_EVENTS if kind is EVENTS else OTHER_METRICS
    forms = list(head.definitions.items())
    forms += [(name, text) for name, texts in others.items() for text in texts]
    forms += [item for item in legacy.definitions.items() if item[0] not in head.definitions]
    return [_candidate(kind, head, name, text) for name, text in forms]


def _candidate(kind: Kind, head: Indexes, name: str, definition: str) -> Candidate:
    rest = head.without(name).without(SUCCESSORS.get(name, name)).without("context_paths")
    # Few months: making many of them would take longer than what is measured.
    having = _at_head(kind, rest.plus(name, definition), months=MONTHS[-3:])
    return Candidate(name, definition, having, _at_head(kind, rest, months=MONTHS[-3:]))


async def _compare_sets(connection: Any, kind: Kind, rounds: int) -> None:
    """Print how fast rows go into head's tables, beside the tables as they were and bare ones."""
    setups = _sets(kind)
    taken: dict[str, list[Pass]] = {name: [] for name in setups}
    for _ in range(rounds):
        for name, setup in setups.items():
            taken[name].append(await run(connection, setup))
    for name, passes in taken.items():
        rate = ROWS / statistics.median(each.seconds for each in passes)
        cpu = 1e6 * statistics.median(each.cpu for each in passes) / ROWS
        ratios = [
            f"{statistics.median(_speed_ups(taken[other], passes)):5.2f} x {other}"
            for other in ("as it was", "bare")
        ]
        print(
            f"{name:<20} {rate:8,.0f} rows/s  CPU {cpu:4.0f} us  {'  '.join(ratios)}  "
            f"indexes {passes[0].index_bytes:5.0f} bytes a row  WAL {passes[0].wal_bytes:5.0f}"
        )


def _speed_ups(others: Sequence[Pass], passes: Sequence[Pass]) -> Iterator[float]:
    for other, each in zip(others, passes, strict=True):
        yield other.seconds / each.seconds


def _sets(kind: Kind) -> dict[str, Setup]:
    head = HEAD_EVENTS if kind is EVENTS else HEAD_METRICS
    legacy = LEGACY_EVENTS if kind is EVENTS else LEGACY_METRICS
    old = _rows(kind, random_keys=True)
    sets = {
        "bare": _setup(bare(SCHEMA, kind), kind, _rows(kind)),
        "as it was": _setup(as_it_was(SCHEMA, kind, legacy), kind, old),
        "head": _at_head(kind, head),
        "head, only keys": _at_head(kind, NO_INDEXES),
    }
    if kind is EVENTS:
        checks = ("none", "locking")
        sets |= {f"head, check {check}": _at_head(kind, head, check=check) for check in checks}
    return sets


def _at_head(
    kind: Kind,
    indexes: Indexes,
    *,
    check: str = "plain",
    months: Sequence[workload.Span] = MONTHS,
) -> Setup:
    storage = METRIC_STORAGE if kind is METRICS else ""
    tables = partitioned(SCHEMA, kind, indexes, months, parent_check=check, storage=storage)
    return _setup(tables, kind, _rows(kind))


def _setup(tables: list[str], kind: Kind, rows: Rows) -> Setup:
    return Setup((*definitions_table(SCHEMA), *tables), kind, rows)


@cache
def _rows(kind: Kind, count: int = ROWS, *, random_keys: bool = False) -> Rows:
    if kind is METRICS:
        rows = list(workload.metrics(count, NOW, random_keys=random_keys))
    else:
        agents = workload.definitions()
        rows = list(workload.events(count, NOW, agents=agents, random_keys=random_keys))
    return Rows(tuple(rows[0]), workload.records(rows))


async def _prices(connection: Any, wanted: list[Candidate], rounds: int) -> list[Price]:
    taken: list[list[tuple[Pass, Pass]]] = [[] for _ in wanted]
    for _ in range(rounds):
        for candidate, pairs in zip(wanted, taken, strict=True):
            lacking = await run(connection, candidate.lacking)
            pairs.append((await run(connection, candidate.having), lacking))
    return [_price(candidate, pairs) for candidate, pairs in zip(wanted, taken, strict=True)]


def _price(candidate: Candidate, pairs: list[tuple[Pass, Pass]]) -> Price:
    having, lacking = pairs[0]
    return Price(
        candidate,
        pairs,
        having.wal_bytes - lacking.wal_bytes,
        having.index_bytes - lacking.index_bytes,
    )


async def run(connection: Any, setup: Setup) -> Pass:
    """Make the tables, copy the rows, and return what that took; sizes are those of a row."""
    await _make(connection, setup)
    await connection.execute("CHECKPOINT")
    before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    backend = psutil.Process(connection.get_server_pid())
    cpu, began = _cpu(backend), time.perf_counter()
    columns, records = setup.rows.columns, setup.rows.records
    for start in range(0, len(records), workload.BATCH):
        await connection.copy_records_to_table(
            setup.kind.table,
            schema_name=SCHEMA,
            columns=columns,
            records=records[start : start + workload.BATCH],
        )
    await connection.execute(_EMPTY_PENDING_LISTS)
    seconds, cpu = time.perf_counter() - began, _cpu(backend) - cpu
    wal = await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before)
    size = await connection.fetchval(_INDEX_BYTES, setup.kind.table)
    count = len(records)
    return Pass(seconds, cpu, float(wal) / count, float(size) / count)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _make(connection: Any, setup: Setup) -> None:
    await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
    for statement in setup.statements:
        await connection.execute(statement)
    agents = workload.definitions()
    await connection.copy_records_to_table(
        "agent_definitions",
        schema_name=SCHEMA,
        columns=list(agents[0]),
        records=workload.records(agents),
    )


_EMPTY_PENDING_LISTS = f"""
SELECT gin_clean_pending_list(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'gin' AND c.relkind = 'i' AND c.relnamespace = '{SCHEMA}'::regnamespace
  AND c.relname NOT LIKE '%agent_definitions%'
"""  # noqa: S608
# Of the month that the rows go to: empty indexes of other months have a page or two each.
_INDEX_BYTES = f"""
SELECT sum(pg_indexes_size(c.oid)) FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = '{SCHEMA}'::regnamespace
  AND (c.relname = $1 OR c.relname = $1 || '_y2026m12')
"""  # noqa: S608


if __name__ == "__main__":
    main()
