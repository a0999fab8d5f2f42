"""The traces of workflows: their runs as a tree with times, and the decisions that led to them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any
from typing import cast as typed
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, any_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import distinct_on

from agentobs.analytics.results import Table, read_rows, table_of
from agentobs.analytics.trace_building import build_trace
from agentobs.analytics.trace_results import (
    FailedBranch,
    Trace,
    TraceDecision,
    TraceNode,
)
from agentobs.analytics.trace_tree import Link
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

    Row = dict[str, Any]
    Model = type[AgentTransformationEvent | RouterPerformanceMetric]

__all__ = [
    "FailedBranch",
    "Link",
    "Trace",
    "TraceDecision",
    "TraceNode",
    "select_session_events",
    "select_trace_decisions",
    "select_trace_events",
    "session_traces",
    "trace",
]

MOST_EVENTS = 100_000
"""How many events, and as many decisions, are read at most where the caller does not say."""

_EVENT_COLUMNS = (
    "id",
    "parent_event_id",
    "correlation_id",
    "session_id",
    "event_type",
    "source_agent",
    "target_agent",
    "agent_definition_id",
    "started_at",
    "completed_at",
    "success",
    "error_type",
    "quality_score",
    "routing_confidence",
    "routing_strategy",
    "transformation_duration_ms",
    "initialization_duration_ms",
    "total_execution_duration_ms",
)
# What may hold data of users.
_CONTEXT_COLUMNS = ("transformation_reason", "user_request", "error_message")
_DECISION_COLUMNS = (
    "id",
    "correlation_id",
    "metric_type",
    "selected_agent",
    "selection_strategy",
    "confidence_score",
    "alternatives_count",
    "total_routing_time_us",
    "cache_hit",
    "actual_success",
    "actual_quality_score",
    "measured_at",
)


def select_trace_events(
    correlation_id: UUID,
    window: Window | None = None,
    *,
    with_context: bool = False,
    most_events: int = MOST_EVENTS,
) -> Select[Any]:
    """Return the events of a workflow, oldest first: one more than `most_events` if there are."""
    statement = select(*_event_columns(with_context)).where(
        AgentTransformationEvent.correlation_id == _key("correlation_id", correlation_id),
        *_held(window, AgentTransformationEvent),
    )
    return statement.order_by(*_instant(AgentTransformationEvent)).limit(_one_more(most_events))


def select_session_events(
    session_id: UUID,
    window: Window | None = None,
    *,
    limit: int = 100,
    with_context: bool = False,
    most_events: int = MOST_EVENTS,
) -> Select[Any]:
    """Return the events of a session's newest workflows, by its last event in each."""
    event = AgentTransformationEvent
    held = _held(window, event)
    last = (
        select(event.correlation_id, event.id)
        .where(event.session_id == _key("session_id", session_id), *held)
        .ext(distinct_on(event.correlation_id))
        .order_by(event.correlation_id, event.id.desc())
        .subquery()
    )
    newest = select(last.c.correlation_id).order_by(last.c.id.desc()).limit(_positive(limit))
    # An event without a session belongs to its workflow all the same. As an array, for whose few
    # values the index is asked; for a join the planner would read all months.
    statement = select(*_event_columns(with_context)).where(
        event.correlation_id == any_(func.array(newest.scalar_subquery())), *held
    )
    newest_first = (column.desc() for column in _instant(event))
    return statement.order_by(*newest_first).limit(_one_more(most_events))


def select_trace_decisions(
    correlation_ids: Sequence[UUID],
    window: Window | None = None,
    *,
    most_events: int = MOST_EVENTS,
) -> Select[Any]:
    """Return the decisions of workflows, newest first."""
    metric = RouterPerformanceMetric
    statement = select(*(getattr(metric, name) for name in _DECISION_COLUMNS)).where(
        _is_one_of(metric.correlation_id, correlation_ids), *_held(window, metric)
    )
    newest_first = (column.desc() for column in _instant(metric))
    return statement.order_by(*newest_first).limit(_one_more(most_events))


async def trace(
    session: AsyncSession,
    correlation_id: UUID | str,
    *,
    window: Window | None = None,
    with_context: bool = False,
    most_events: int = MOST_EVENTS,
) -> Trace:
    """Return a workflow as a tree; an empty one where the id is not known.

    A window leaves other months alone; events before it are missed by their children, which are
    orphans then. Of more than `most_events` the oldest are read. `with_context` reads what may hold
    data of users: context, request, reason and error message.
    """
    workflow = _key("correlation_id", correlation_id)
    statement = select_trace_events(
        workflow, window, with_context=with_context, most_events=most_events
    )
    events = await read_rows(session, statement)
    chosen = select_trace_decisions([workflow], window, most_events=most_events)
    decisions = await read_rows(session, chosen)
    is_truncated = max(len(events), len(decisions)) > most_events
    return build_trace(
        workflow, events[:most_events], decisions[:most_events], is_truncated=is_truncated
    )


async def session_traces(
    session: AsyncSession,
    session_id: UUID | str,
    *,
    limit: int = 100,
    window: Window | None = None,
    with_context: bool = False,
    most_events: int = MOST_EVENTS,
) -> Table[Trace]:
    """Return the newest `limit` workflows of a conversation, by its last event in each.

    `most_events` bounds what is read of all together, the newest of it; where there is more, each
    is marked as truncated. The rest is as of `trace`.
    """
    conversation = _key("session_id", session_id)
    statement = select_session_events(
        conversation, window, limit=limit, with_context=with_context, most_events=most_events
    )
    events = await read_rows(session, statement)
    of_workflow = _newest_first(_by_workflow(events[:most_events]), conversation)
    chosen = select_trace_decisions(list(of_workflow), window, most_events=most_events)
    decisions = await read_rows(session, chosen)
    is_truncated = max(len(events), len(decisions)) > most_events
    told = _by_workflow(decisions[:most_events])
    traces = [
        build_trace(key, of, told.get(key, []), is_truncated=is_truncated)
        for key, of in of_workflow.items()
    ]
    return table_of(Trace, traces)


def _event_columns(with_context: bool) -> list[Any]:
    event = AgentTransformationEvent
    names = (*_EVENT_COLUMNS, *_CONTEXT_COLUMNS) if with_context else _EVENT_COLUMNS
    # As text, so that an answer stays frozen, and becomes a column of other libraries.
    context = [cast(event.context_snapshot, Text).label("context_json")] if with_context else []
    return [*(getattr(event, name) for name in names), *context]


def _is_one_of(column: Any, keys: Sequence[UUID]) -> ColumnElement[bool]:
    """Compare with one value, or else with one array, never with a parameter for each.

    The planner takes an array for ten values, so it less often keeps one plan for all calls, and
    to plan months takes longer than to read them.
    """
    if len(keys) == 1:
        return typed("ColumnElement[bool]", column == keys[0])
    return typed("ColumnElement[bool]", column == any_(literal(list(keys), ARRAY(Uuid))))


def _held(window: Window | None, model: Model) -> list[ColumnElement[bool]]:
    return [] if window is None else [require_window(window).holds(model)]


def _instant(model: Any) -> tuple[Any, Any]:
    """Return the order of the ids, which no index gives by these columns.

    By the id alone, a small LIMIT would tempt the planner to read months in the order of their keys
    until it has met enough of the workflow.
    """
    instant = model.started_at if model is AgentTransformationEvent else model.measured_at
    return instant, model.id


def _key(name: str, value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidValueError(name, "must be a UUID, or the text of one") from None


def _positive(limit: int) -> int:
    if limit < 1:
        raise InvalidValueError("limit", "must be 1 or more")
    return limit


def _one_more(most_events: int) -> int:
    if most_events < 1:
        raise InvalidValueError("most_events", "must be 1 or more")
    return most_events + 1


def _by_workflow(rows: Iterable[Row]) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["correlation_id"]].append(row)
    return dict(found)


def _newest_first(of_workflow: dict[UUID, list[Row]], session_id: UUID) -> dict[UUID, list[Row]]:
    def last(workflow: UUID) -> Any:
        # Where the bound has cut off those of the session, the others stand for them.
        return max((row["session_id"] == session_id, row["id"]) for row in of_workflow[workflow])[1]

    return {key: of_workflow[key] for key in sorted(of_workflow, key=last, reverse=True)}
