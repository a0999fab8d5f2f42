"""The tables of the rollups, as the migrations make them.

They are no part of `agentobs.metadata`: a host that lists it should not have to know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    and_,
)
from sqlalchemy.dialects.postgresql import ARRAY, OID

if TYPE_CHECKING:
    from collections.abc import Iterable

metadata = MetaData()
INSTANT = DateTime(timezone=True)

STATE = Table(
    "agentobs_rollup_state",
    metadata,
    Column("table_name", Text, primary_key=True),
    Column("folded_to", INSTANT, nullable=False),
    Column("closing_to", INSTANT),
    # Transaction ids are compared by the server alone: no client reads them.
    Column("closing", ARRAY(BigInteger)),
)
"""How far each event table is folded, and the transactions that its next hours wait for."""

MARKS = Table(
    "agentobs_rollup_marks",
    metadata,
    Column("table_name", Text, nullable=False),
    Column("hour", INSTANT, nullable=False),
)
"""Hours in which rows changed after they had closed; an hour may stand there many times."""

PARTITIONS = Table(
    "agentobs_rollup_partitions",
    metadata,
    Column("partition", OID, primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("print", Text, nullable=False),
    Column("lower_id", Uuid, nullable=False),
    Column("upper_id", Uuid, nullable=False),
)
"""The partitions as they were when their hours were folded."""

ATTACHED = Table(
    "agentobs_attached_partitions",
    metadata,
    Column("table_name", Text),
    Column("partition", OID),
    Column("print", Text),
    Column("lower_id", Uuid),
    Column("upper_id", Uuid),
    Column("is_filtered", Boolean),
)
"""A view: the partitions as they are.

`print` is NULL where a trigger is missing or off; `is_filtered` where policies hide rows from the
role that asks.
"""

IS_AS_NOTED = and_(
    PARTITIONS.c.partition == ATTACHED.c.partition, PARTITIONS.c.print == ATTACHED.c.print
)
"""The condition that a partition is what it was when its hours were folded."""


def _rollup(name: str, columns: Iterable[Column[object]]) -> Table:
    return Table(
        name,
        metadata,
        Column("begins_at", INSTANT, nullable=False),
        Column("is_day", Boolean, nullable=False),
        Column("is_total", Boolean, nullable=False),
        Column("is_kept", Boolean, nullable=False),
        Column("agent", String(255)),
        *columns,
    )


def _counts(*names: str) -> Iterable[Column[object]]:
    return (Column(name, BigInteger, nullable=False) for name in names)


def _measures(*names: str) -> Iterable[Column[object]]:
    for name in names:
        yield Column(f"{name}_rows", BigInteger, nullable=False)
        yield Column(f"{name}_sum", BigInteger)
        yield Column(f"{name}_histogram", Numeric)


def _percentiles(*names: str) -> Iterable[Column[object]]:
    return (Column(name, Integer) for name in names)


EXECUTIONS = _rollup(
    "agentobs_execution_rollups",
    (
        *_counts("executions", "finished", "succeeded", "rated"),
        Column("quality_score_sum", Numeric),
        *_measures("total_execution_duration_ms"),
        *_percentiles("p50_duration_ms", "p95_duration_ms", "p99_duration_ms"),
    ),
)
"""Hours and days of the events, of each target agent and of all."""

DECISIONS = _rollup(
    "agentobs_routing_rollups",
    (
        *_counts("decisions", "over_target", "cache_lookups", "cache_hits", "cache_ages"),
        Column("cache_age_seconds_sum", BigInteger),
        *_measures(
            "total_routing_time_us",
            "cache_lookup_us",
            "trigger_matching_us",
            "confidence_scoring_us",
        ),
        *_percentiles(
            "p50_total_us",
            "p95_total_us",
            "p99_total_us",
            "p95_cache_lookup_us",
            "p95_trigger_matching_us",
            "p95_confidence_scoring_us",
        ),
    ),
)
"""Hours and days of the routing decisions, of each selected agent and of all."""
