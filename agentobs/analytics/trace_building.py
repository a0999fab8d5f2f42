"""A trace from its rows, without a database."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from agentobs.analytics.results import Table, table_of
from agentobs.analytics.trace_results import FailedBranch, Trace, TraceDecision, TraceNode
from agentobs.analytics.trace_tree import Link, Run, Span, extent, grow, microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    Row = dict[str, Any]

_MICROSECONDS_A_MILLISECOND = 1000


def build_trace(
    correlation_id: UUID,
    events: Sequence[Row],
    decisions: Sequence[Row],
    *,
    is_truncated: bool = False,
) -> Trace:
    """Return the trace of a workflow's events and decisions, given in any order."""
    spans = grow(map(_run, events))
    rows = {row["id"]: row for row in events}
    return Trace(
        correlation_id=correlation_id,
        **_times(spans),
        running=sum(span.run.success is None for span in spans),
        failed=sum(span.has_failed for span in spans),
        is_truncated=is_truncated,
        nodes=_nodes(spans, rows),
        decisions=_decisions(decisions, spans, rows),
        failed_branches=_failed_branches(spans, rows),
    )


def _run(row: Row) -> Run:
    completed = row["completed_at"]
    # The driver's infinity is a naive datetime: such a run has no end.
    is_finite = completed is not None and completed.tzinfo is not None
    return Run(
        id=row["id"],
        parent_id=row["parent_event_id"],
        started_at=row["started_at"],
        completed_at=completed if is_finite else None,
        recorded_ms=row["total_execution_duration_ms"],
        success=row["success"],
    )


def _times(spans: Sequence[Span]) -> dict[str, Any]:
    total = extent(spans)
    path = [span for span in spans if span.critical is not None]
    return {
        "started_at": min((span.run.started_at for span in spans), default=None),
        "total_ms": _ms(total),
        "critical_ms": None if total is None else _ms(sum(span.critical or 0 for span in path)),
        "critical_path": tuple(span.run.id for span in path),
    }


def _nodes(spans: Sequence[Span], rows: Mapping[UUID, Row]) -> Table[TraceNode]:
    first = min((span.begin for span in spans), default=0)
    told = [rows[span.run.id] | _measures(span, first) for span in spans]
    return table_of(TraceNode, [TraceNode.model_validate(node) for node in told])


def _measures(span: Span, first: int) -> Row:
    return {
        "parent_id": None if span.parent is None else span.parent.run.id,
        "children": tuple([child.run.id for child in span.children]),
        "depth": span.depth,
        "link": span.link,
        "offset_ms": _ms(span.begin - first),
        "total_ms": _ms(span.total),
        "self_ms": _ms(span.own),
        "critical_ms": _ms(span.critical),
        "failed_below": span.failed_below,
        "completed_at": span.run.completed_at,
    }


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / _MICROSECONDS_A_MILLISECOND


def _decisions(
    decisions: Iterable[Row], spans: Iterable[Span], rows: Mapping[UUID, Row]
) -> Table[TraceDecision]:
    """Return the decisions as they were made, each with the run it led to."""
    runs: dict[str, list[tuple[int, UUID]]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: (each.begin, each.run.id)):
        runs[rows[span.run.id]["target_agent"]].append((span.begin, span.run.id))
    ordered = sorted(decisions, key=lambda row: (row["measured_at"], row["id"]))
    told = [row | {"run_id": _run_of(row, runs)} for row in ordered]
    return table_of(TraceDecision, [TraceDecision.model_validate(each) for each in told])


def _run_of(decision: Row, runs: Mapping[str, list[tuple[int, UUID]]]) -> UUID | None:
    of_agent = runs.get(decision["selected_agent"], [])
    made = microseconds(decision["measured_at"])
    place = bisect_left(of_agent, made, key=lambda run: run[0])
    return of_agent[place][1] if place < len(of_agent) else None


def _failed_branches(spans: Iterable[Span], rows: Mapping[UUID, Row]) -> Table[FailedBranch]:
    origins = [(s, s.reached) for s in spans if s.reached is not None and not s.failed_below]
    told = [
        FailedBranch(
            origin_id=origin.run.id,
            reached_id=reached.run.id,
            target_agent=rows[origin.run.id]["target_agent"],
            error_type=rows[origin.run.id]["error_type"],
            is_contained=_is_contained(reached),
        )
        for origin, reached in origins
    ]
    return table_of(FailedBranch, told)


def _is_contained(reached: Span) -> bool | None:
    if reached.parent is not None:
        return reached.parent.run.success
    return False if reached.link is Link.ROOT else None
