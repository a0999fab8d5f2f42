"""What the analytics tell of a workflow: its tree, its decisions and its failures."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from agentobs.analytics.results import Result, Table
from agentobs.analytics.trace_tree import Link
from agentobs.jsonb import decode


class TraceNode(Result):
    """A run in its place in the tree.

    `parent_id` and `children` are ids of nodes; `parent_event_id` is what the event names, which
    `link` tells of. `total_ms` is from its start to `completed_at` or, without that, by
    `total_execution_duration_ms`; `self_ms` the part of it in which none of the children ran.
    Both are None of a run without an end. `critical_ms` is what it adds itself to the critical
    path, None off it; `offset_ms` when it began, counted from the start of the trace;
    `failed_below` the number of failed runs under it. The last four are None unless they were asked
    for by `with_context`, and no repr shows them.
    """

    id: UUID
    parent_id: UUID | None
    children: tuple[UUID, ...]
    depth: int
    link: Link
    offset_ms: float
    total_ms: float | None
    self_ms: float | None
    critical_ms: float | None
    failed_below: int
    parent_event_id: UUID | None
    session_id: UUID | None
    event_type: str
    source_agent: str | None
    target_agent: str
    agent_definition_id: UUID | None
    started_at: datetime
    completed_at: datetime | None
    success: bool | None
    error_type: str | None
    quality_score: float | None
    routing_confidence: float | None
    routing_strategy: str | None
    transformation_duration_ms: int | None
    initialization_duration_ms: int | None
    total_execution_duration_ms: int | None
    transformation_reason: str | None = Field(default=None, repr=False)
    user_request: str | None = Field(default=None, repr=False)
    error_message: str | None = Field(default=None, repr=False)
    context_json: str | None = Field(default=None, repr=False)

    @property
    def context(self) -> Any:
        """The context_snapshot, decoded anew each time; None where there is none, or not asked."""
        return None if self.context_json is None else decode(self.context_json)


class TraceDecision(Result):
    """A decision of the router, and the run it led to.

    `run_id` is the first run at or after the decision whose target is the selected agent: told by
    time alone, so two decisions may name one run. None where no such run followed.
    """

    id: UUID
    run_id: UUID | None
    metric_type: str
    selected_agent: str | None
    selection_strategy: str | None
    confidence_score: float | None
    alternatives_count: int | None
    total_routing_time_us: int | None
    cache_hit: bool | None
    actual_success: bool | None
    actual_quality_score: float | None
    measured_at: datetime


class FailedBranch(Result):
    """A failure from where it began, a failed run with none below it, up to where it stopped.

    `reached_id` is the topmost of the failed runs right above it, itself where its parent did not
    fail. `is_contained` tells whether the caller of that succeeded all the same; None while it
    runs, or where it is not known.
    """

    origin_id: UUID
    reached_id: UUID
    target_agent: str
    error_type: str | None
    is_contained: bool | None


class Trace(Result):
    """A workflow; without nodes and times where no event of it was found.

    `total_ms` is from the first start to the last instant known, None where nothing has ended. The
    critical path goes back from there: to the child that ended last, from its start to the
    child that had ended last before, and so on into each; its ids stand in the order of the nodes.
    `critical_ms` is the time of the path, less than the total by the gaps between several roots.
    `is_truncated` tells that there are more events or decisions than were read.
    """

    correlation_id: UUID
    started_at: datetime | None
    total_ms: float | None
    critical_ms: float | None
    running: int
    failed: int
    is_truncated: bool
    critical_path: tuple[UUID, ...]
    nodes: Table[TraceNode]
    decisions: Table[TraceDecision]
    failed_branches: Table[FailedBranch]
