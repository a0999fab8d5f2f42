"""What the four components of the router's confidence contribute, and which decide nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, cast, func, or_, select

from agentobs.analytics.aggregates import mean
from agentobs.analytics.results import Result, Table, execute, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import RouterPerformanceMetric
from agentobs.models.vocabulary import (
    CAPABILITY_WEIGHT,
    CONTEXT_WEIGHT,
    HISTORICAL_WEIGHT,
    TRIGGER_WEIGHT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

SATURATED_SHARE = Decimal("0.95")
"""Of so many values at one end, a component tells nothing."""

_Metric = RouterPerformanceMetric
_COMPONENTS = {
    "trigger": (_Metric.trigger_confidence, TRIGGER_WEIGHT),
    "context": (_Metric.context_confidence, CONTEXT_WEIGHT),
    "capability": (_Metric.capability_confidence, CAPABILITY_WEIGHT),
    "historical": (_Metric.historical_confidence, HISTORICAL_WEIGHT),
}


class ComponentConfidence(Result):
    """One component of the confidence in an agent; None is the agent of decisions for nobody.

    `rows` are those that have the component; the deviation is that of a sample. `score_share` is
    what the weighted component adds to the scores of all rows that have any component and a score,
    where one that is missing adds 0: with all of them known, weight x mean / mean score.
    `is_constant` says that all values are the same, `is_saturated` that 95 % or more are 0, or 1;
    both are None where there are not enough rows to tell.
    """

    agent: str | None
    component: str
    weight: float
    rows: int
    mean: float | None
    standard_deviation: float | None
    score_share: float | None
    is_constant: bool | None
    is_saturated: bool | None


def select_confidence(window: Window) -> Select[Any]:
    """Select for each agent, by name (code points), its scores and what its components come to.

    A row has all four components, in columns of their names: so the table is read and grouped once.
    """
    agent = _Metric.selected_agent
    measures = [
        measure.label(f"{name}_{measured}")
        for name, (value, _) in _COMPONENTS.items()
        for measured, measure in _measures(value.expression).items()
    ]
    return (
        select(agent.label("agent"), func.sum(_Metric.confidence_score).label("score"), *measures)
        .where(
            require_window(window).holds(_Metric),
            or_(*(one.is_not(None) for one, _ in _COMPONENTS.values())),
        )
        .group_by(agent)
        .order_by(agent.collate("C").nulls_last())
    )


async def confidence(
    session: AsyncSession, window: Window, *, min_rows: int = 20
) -> Table[ComponentConfidence]:
    """Return the four components of each agent, by name (code points), the heaviest first.

    Decisions without any component are left out. Raises InvalidValueError for a `min_rows` below 1.
    """
    if min_rows < 1:
        raise InvalidValueError("min_rows", "must be 1 at least")
    found = await execute(session, select_confidence(window))
    told = [one for row in found.mappings() for one in _components(row, min_rows)]
    return table_of(ComponentConfidence, told)


def _measures(value: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    has_score = _Metric.confidence_score.is_not(None)
    return {
        "rows": func.count(value),
        "mean": mean(value),
        "deviation": cast(func.stddev_samp(value), Double),
        "is_constant": func.min(value) == func.max(value),
        "zeros": func.count().filter(value == 0),
        "ones": func.count().filter(value == 1),
        "added": func.sum(value).filter(has_score),
    }


def _components(row: Mapping[Any, Any], min_rows: int) -> Iterator[ComponentConfidence]:
    for name, (_, weight) in _COMPONENTS.items():
        rows, added, score = row[f"{name}_rows"], row[f"{name}_added"], row["score"]
        at_an_end, is_enough = max(row[f"{name}_zeros"], row[f"{name}_ones"]), rows >= min_rows
        yield ComponentConfidence(
            agent=row["agent"],
            component=name,
            weight=weight,
            rows=rows,
            mean=row[f"{name}_mean"],
            standard_deviation=row[f"{name}_deviation"],
            score_share=weight * float(added / score) if score and added is not None else None,
            is_constant=row[f"{name}_is_constant"] if is_enough else None,
            is_saturated=at_an_end >= SATURATED_SHARE * rows if is_enough else None,
        )
