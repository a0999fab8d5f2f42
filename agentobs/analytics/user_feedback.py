"""What people said of the router's decisions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from typing import cast as typed
from uuid import UUID

from pydantic import Field
from sqlalchemy import Double, Text, cast, func, select, true

from agentobs.analytics.aggregates import mean
from agentobs.analytics.results import Result, Table, fetch, read_rows, table_of
from agentobs.analytics.router import rows_of
from agentobs.errors import InvalidValueError
from agentobs.jsonb import decode
from agentobs.models import FeedbackType, RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

# Word for word the condition of the index, which `IS TRUE` would not be taken for.
_HAS_FEEDBACK = typed("ColumnElement[bool]", RouterPerformanceMetric.feedback_provided)
_CORRECTION_COLUMNS = (
    "id",
    "correlation_id",
    "selected_agent",
    "selection_strategy",
    "confidence_score",
    "actual_success",
    "actual_quality_score",
    "measured_at",
)


class FeedbackOfType(Result):
    """The feedback of one type, None being feedback without a type; `share` is of all feedback.

    Means are of the decisions that have the value, 0 to 1; None where none has.
    """

    feedback_type: str | None
    count: int
    share: float
    mean_confidence: float | None
    mean_actual_quality: float | None


class Correction(Result):
    """A decision that a person corrected.

    `details_json` is None unless it was asked for by `with_details`, and no repr shows it.
    """

    id: UUID
    correlation_id: UUID | None
    selected_agent: str | None
    selection_strategy: str | None
    confidence_score: float | None
    actual_success: bool | None
    actual_quality_score: float | None
    measured_at: datetime
    details_json: str | None = Field(default=None, repr=False)

    @property
    def details(self) -> Any:
        """The feedback_details, decoded anew each time; None where there are none, or not asked."""
        return None if self.details_json is None else decode(self.details_json)


class Feedback(Result):
    """Feedback on the decisions of a window.

    `decisions` counts the router's rows; `feedback_rate` is the share of those with feedback, None
    without decisions. Types come most frequent first, corrections newest
    first.
    """

    decisions: int
    with_feedback: int
    feedback_rate: float | None
    types: Table[FeedbackOfType]
    corrections: Table[Correction]


def select_feedback(window: Window, *, metric_types: Collection[str] | None = None) -> Select[Any]:
    """Return the types by their count, each with the number of all `decisions`.

    Without feedback one row tells that number, and has no `count`.
    """
    counted = select(func.count().label("decisions")).where(rows_of(window, metric_types))
    # By itself, so that the index of the rows with feedback can answer.
    decisions, types = counted.subquery(), _types(window, metric_types).subquery()
    statement = select(decisions.c.decisions, *types.c).join_from(
        decisions, types, true(), isouter=True
    )
    return statement.order_by(types.c.count.desc(), types.c.feedback_type.nulls_last())


def select_corrections(
    window: Window,
    *,
    limit: int = 20,
    with_details: bool = False,
    metric_types: Collection[str] | None = None,
) -> Select[Any]:
    """Return the newest decisions that were corrected; the details only on request."""
    if limit < 1:
        raise InvalidValueError("limit", "must be 1 or more")
    metric = RouterPerformanceMetric
    # As text, so that an answer stays frozen, and becomes a column of other libraries.
    details = [cast(metric.feedback_details, Text).label("details_json")] if with_details else []
    columns = [*(getattr(metric, name) for name in _CORRECTION_COLUMNS), *details]
    statement = select(*columns).where(
        _HAS_FEEDBACK,
        metric.feedback_type == FeedbackType.CORRECTION.value,
        rows_of(window, metric_types),
    )
    return statement.order_by(metric.id.desc()).limit(limit)


async def feedback(
    session: AsyncSession,
    window: Window,
    *,
    limit: int = 20,
    with_details: bool = False,
    metric_types: Collection[str] | None = None,
) -> Feedback:
    """Return the feedback by type, and the newest `limit` corrections.

    `with_details` reads what people wrote, which may hold data of users. Of all types of metrics
    where `metric_types` names none.
    """
    statement = select_feedback(window, metric_types=metric_types)
    found = await read_rows(session, statement)
    corrections = select_corrections(
        window, limit=limit, with_details=with_details, metric_types=metric_types
    )
    return Feedback(**_told(found), corrections=await fetch(session, corrections, Correction))


def _told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    decisions = rows[0]["decisions"]
    types = [FeedbackOfType.model_validate(row) for row in rows if row["count"] is not None]
    with_feedback = sum(each.count for each in types)
    return {
        "decisions": decisions,
        "with_feedback": with_feedback,
        "feedback_rate": with_feedback / decisions if decisions else None,
        "types": table_of(FeedbackOfType, types),
    }


def _types(window: Window, metric_types: Collection[str] | None) -> Select[Any]:
    metric = RouterPerformanceMetric
    count = func.count()
    columns: list[Any] = [
        metric.feedback_type,
        count.label("count"),
        (cast(count, Double) / func.sum(count).over()).label("share"),
        mean(metric.confidence_score).label("mean_confidence"),
        mean(metric.actual_quality_score).label("mean_actual_quality"),
    ]
    statement = select(*columns).where(_HAS_FEEDBACK, rows_of(window, metric_types))
    return statement.group_by(metric.feedback_type)
