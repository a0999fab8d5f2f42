"""What a report asks beside the analytics: activity over time, newest failures, completeness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 (pydantic reads it)

from sqlalchemy import (
    ARRAY,
    DateTime,
    Interval,
    Text,
    and_,
    any_,
    cast,
    func,
    literal,
    not_,
    select,
)

from agentobs.analytics import Result, Table
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics import Window

OVERDUE = timedelta(hours=1)
"""A run without an end that began so long before the window's end is told apart."""

_Event, _Metric = AgentTransformationEvent, RouterPerformanceMetric
_MICROSECOND = timedelta(microseconds=1)


class Activity(Result):
    """The runs of an agent that began in one step of a series."""

    agent: str
    begins_at: datetime
    runs: int


class FailedWorkflow(Result):
    """A workflow with a run that failed; `of_all` counts those of the window."""

    correlation_id: UUID
    failed: int
    of_all: int


class Completeness(Result):
    """What the rows of a window lack, as far as the tables tell.

    Of the runs: `unended` have no outcome, `overdue` of these began more than an hour before the
    window's end, `untimed` ended without a duration, `unrated` without a quality. Of the
    decisions: `unvalidated` have no known outcome, `untimed_decisions` no total time, `unlinked`
    name no workflow. The instants are those of the newest rows.
    """

    runs: int
    unended: int
    overdue: int
    untimed: int
    unrated: int
    newest_run_at: datetime | None
    decisions: int
    unvalidated: int
    untimed_decisions: int
    unlinked: int
    newest_decision_at: datetime | None


def select_activity(
    window: Window, every: timedelta, agents: Sequence[str], origin: datetime
) -> Select[Any]:
    """Select how many runs of each agent began in each step, counted from `origin`."""
    # As the routing series does: a row whose instant differs from its key stays in the window.
    instant = func.least(
        func.greatest(_Event.started_at, _instant(window.since)),
        _instant(window.until - _MICROSECOND),
    )
    begins_at = func.date_bin(literal(every, Interval), instant, _instant(origin))
    return (
        select(
            _Event.target_agent.label("agent"),
            begins_at.label("begins_at"),
            func.count().label("runs"),
        )
        .where(
            window.holds(_Event), _Event.target_agent == any_(literal(list(agents), ARRAY(Text)))
        )
        .group_by("agent", "begins_at")
    )


def select_failed_workflows(window: Window, *, limit: int = 10) -> Select[Any]:
    """Select the workflows with failed runs, by the newest of these, newest first."""
    # Before PostgreSQL 18 there is no max() of UUIDs; their texts have the same order.
    newest = func.max(cast(_Event.id, Text).collate("C"))
    columns: list[Any] = [
        _Event.correlation_id,
        func.count().label("failed"),
        func.count().over().label("of_all"),
    ]
    return (
        select(*columns)
        .where(window.holds(_Event), _Event.success.is_(False))
        .group_by(_Event.correlation_id)
        .order_by(newest.desc())
        .limit(limit)
    )


def select_run_completeness(window: Window) -> Select[Any]:
    """Select what the runs lack: one row."""
    is_unended = _Event.success.is_(None)
    is_overdue = and_(is_unended, _Event.started_at < _instant(window.until - OVERDUE))
    is_untimed = and_(not_(is_unended), _Event.total_execution_duration_ms.is_(None))
    is_unrated = and_(not_(is_unended), _Event.quality_score.is_(None))
    columns: list[Any] = [
        func.count().label("runs"),
        _count(is_unended).label("unended"),
        _count(is_overdue).label("overdue"),
        _count(is_untimed).label("untimed"),
        _count(is_unrated).label("unrated"),
        func.max(_Event.started_at).label("newest_run_at"),
    ]
    return select(*columns).where(window.holds(_Event))


def select_decision_completeness(window: Window) -> Select[Any]:
    """Select what the decisions lack: one row."""
    columns: list[Any] = [
        func.count().label("decisions"),
        _count(_Metric.selection_validated.is_not(True)).label("unvalidated"),
        _count(_Metric.total_routing_time_us.is_(None)).label("untimed_decisions"),
        _count(_Metric.correlation_id.is_(None)).label("unlinked"),
        func.max(_Metric.measured_at).label("newest_decision_at"),
    ]
    return select(*columns).where(window.holds(_Metric))


async def activity(
    session: AsyncSession,
    window: Window,
    every: timedelta,
    agents: Sequence[str],
    origin: datetime,
) -> Table[Activity]:
    """Return how many runs of the agents began in each step that has any, in no order."""
    found = await session.execute(select_activity(window, every, agents, origin))
    rows = [
        Activity(agent=row.agent, begins_at=row.begins_at.astimezone(UTC), runs=row.runs)
        for row in found
    ]
    return Table[Activity](tuple(rows))


async def failed_workflows(
    session: AsyncSession, window: Window, *, limit: int = 10
) -> Table[FailedWorkflow]:
    """Return the workflows with failed runs, by the newest of these, newest first."""
    found = await session.execute(select_failed_workflows(window, limit=limit))
    rows = [FailedWorkflow.model_validate(dict(row)) for row in found.mappings()]
    return Table[FailedWorkflow](tuple(rows))


async def completeness(session: AsyncSession, window: Window) -> Completeness:
    """Return what the rows of a window lack."""
    runs = (await session.execute(select_run_completeness(window))).mappings().one()
    decisions = (await session.execute(select_decision_completeness(window))).mappings().one()
    return Completeness.model_validate({**runs, **decisions})


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _instant(value: datetime) -> ColumnElement[datetime]:
    return literal(value, DateTime(timezone=True))
