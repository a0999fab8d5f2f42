"""What is rolled up: the sums, histograms and percentiles of each event table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Double, and_, func, literal

from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.rollups.histogram import histogram_of, percentiles_of
from agentobs.rollups.tables import DECISIONS, EXECUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import ColumnElement, Table

TARGET_US = 100_000
"""A decision is to take less than this."""


@dataclass(frozen=True)
class Measure:
    """A column of times: their rows, sum and histogram, and percentiles of an hour by name."""

    name: str
    percentiles: Mapping[str, float]

    @property
    def histogram(self) -> str:
        """The name of the histogram."""
        return f"{self.name}_histogram"

    def percentiles_of(self, histogram: str, sums: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
        """Return the percentiles of a histogram by their names; of one row, it is its time."""
        if sums[f"{self.name}_rows"] == 1:
            return zip(self.percentiles, repeat(int(sums[f"{self.name}_sum"])), strict=False)
        found = percentiles_of(histogram, [*self.percentiles.values()])
        return zip(self.percentiles, found, strict=True)


@dataclass(frozen=True, eq=False)
class Family:
    """An event table, and the rollup that is made of it; `count` is what all its rows add up to."""

    rows: Table
    rollup: Table
    agent: str
    count: str
    sums_of: Callable[[Any], Mapping[str, ColumnElement[Any]]]
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        """The name of the event table."""
        return self.rows.name

    @property
    def aggregates(self) -> dict[str, ColumnElement[Any]]:
        """What is added up over rows, and then over hours: by the names in the rollup."""
        return dict(self._aggregates())

    @property
    def percentiles(self) -> dict[str, ColumnElement[Any]]:
        """The percentiles that an hour of all agents stores, as they are found in its rows."""
        return {
            name: func.percentile_disc(literal(share, Double)).within_group(
                self.rows.c[measure.name].asc()
            )
            for measure in self.measures
            for name, share in measure.percentiles.items()
        }

    def percentiles_of(self, row: Mapping[Any, Any]) -> dict[str, int]:
        """Return the percentiles of a row that was merged, but for those that an hour stored."""
        return {
            name: value
            for measure in self.measures
            if (histogram := row[measure.histogram]) is not None
            for name, value in measure.percentiles_of(histogram, row)
        }

    def _aggregates(self) -> Iterator[tuple[str, ColumnElement[Any]]]:
        yield from self.sums_of(self.rows.c).items()
        for measure in self.measures:
            column = self.rows.c[measure.name]
            yield f"{measure.name}_rows", func.count(column)
            yield f"{measure.name}_sum", func.sum(column)
            yield measure.histogram, histogram_of(column)


def _sums_of_executions(columns: Any) -> Mapping[str, ColumnElement[Any]]:
    return {
        "executions": func.count(),
        "finished": func.count(columns.success),
        "succeeded": func.count().filter(columns.success),
        "rated": func.count(columns.quality_score),
        "quality_score_sum": func.sum(columns.quality_score),
    }


def _sums_of_decisions(columns: Any) -> Mapping[str, ColumnElement[Any]]:
    is_aged = and_(columns.cache_hit, columns.cache_age_seconds.is_not(None))
    return {
        "decisions": func.count(),
        "over_target": func.count().filter(columns.total_routing_time_us >= TARGET_US),
        "cache_lookups": func.count(columns.cache_hit),
        "cache_hits": func.count().filter(columns.cache_hit),
        "cache_ages": func.count().filter(is_aged),
        "cache_age_seconds_sum": func.sum(columns.cache_age_seconds).filter(is_aged),
    }


EXECUTION = Family(
    rows=cast("Table", AgentTransformationEvent.__table__),
    rollup=EXECUTIONS,
    agent="target_agent",
    count="executions",
    sums_of=_sums_of_executions,
    measures=(
        Measure(
            "total_execution_duration_ms",
            {"p50_duration_ms": 0.5, "p95_duration_ms": 0.95, "p99_duration_ms": 0.99},
        ),
    ),
)
ROUTING = Family(
    rows=cast("Table", RouterPerformanceMetric.__table__),
    rollup=DECISIONS,
    agent="selected_agent",
    count="decisions",
    sums_of=_sums_of_decisions,
    measures=(
        Measure(
            "total_routing_time_us",
            {"p50_total_us": 0.5, "p95_total_us": 0.95, "p99_total_us": 0.99},
        ),
        *(
            Measure(name, {f"p95_{name}": 0.95})
            for name in ("cache_lookup_us", "trigger_matching_us", "confidence_scoring_us")
        ),
    ),
)
FAMILIES = (EXECUTION, ROUTING)
