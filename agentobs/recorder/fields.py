"""The fields of records as keyword arguments, for editors and type checkers.

What a record takes is said in `records`; here is what may be given instead of a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from agentobs.recorder.records import Alternative, Confidence, Timings


class RoutingDecisionFields(TypedDict, total=False):
    """The fields of a RoutingDecision."""

    selected_agent: str | None
    strategy: str | None
    confidence: Confidence | Mapping[str, float] | None
    confidence_score: float | None
    alternatives: Sequence[Alternative | Mapping[str, Any]]
    timings_us: Timings | Mapping[str, int] | None
    cache_hit: bool | None
    cache_key: str | None
    cache_age_seconds: int | None
    user_request: str | None
    context: Mapping[Any, Any] | None
    metric_type: str
    correlation_id: UUID | None
    measured_at: datetime | None


class TransformationFields(TypedDict, total=False):
    """The fields of a Transformation that begins; `target_agent` is needed."""

    target_agent: str
    source_agent: str | None
    reason: str | None
    context_snapshot: Mapping[Any, Any] | None
    user_request: str | None
    correlation_id: UUID | None
    session_id: UUID | None
    parent_event_id: UUID | None
    agent_definition_id: UUID | None
    routing_confidence: float | None
    routing_strategy: str | None
    started_at: datetime | None
