"""The records that recorders are measured with, and the same written to rows by hand."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import orjson

from agentobs.keys import uuid7_at
from agentobs.recorder import Alternative, Confidence, RoutingDecision, Timings, Transformation
from benchmarks import workload

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT_COLUMNS = (
    "id", "event_type", "correlation_id", "session_id", "source_agent", "target_agent",
    "transformation_reason", "context_snapshot", "context_keys", "context_size_bytes",
    "user_request", "routing_confidence", "routing_strategy", "transformation_duration_ms",
    "initialization_duration_ms", "total_execution_duration_ms", "success", "error_message",
    "error_type", "quality_score", "agent_definition_id", "parent_event_id", "started_at",
    "completed_at",
)  # fmt: skip
METRIC_COLUMNS = (
    "id", "metric_type", "correlation_id", "user_request_hash", "context_hash", "selected_agent",
    "selection_strategy", "confidence_score", "alternative_agents", "alternatives_count",
    "cache_lookup_us", "trigger_matching_us", "confidence_scoring_us", "total_routing_time_us",
    "trigger_confidence", "context_confidence", "capability_confidence", "historical_confidence",
    "cache_hit", "cache_key", "cache_age_seconds", "measured_at",
)  # fmt: skip


class Nested:
    """Transformations, of which 83 % are nested: each names its parent by its place."""

    def __init__(self, count: int) -> None:
        now = datetime.now(UTC)
        span = workload.Span(max(now.replace(day=1, hour=0), now - timedelta(days=7)), now)
        rows = [workload.as_values(row) for row in workload.events(count, span)]
        places = {row["id"]: place for place, row in enumerate(rows)}
        self._parents = [places.get(row["parent_event_id"]) for row in rows]
        self._records = [_transformation(row) for row in rows]
        self._keys: list[UUID | None] = []

    def __iter__(self) -> Iterator[Transformation]:
        """Yield the records; what `note` was told of the parent's key stands in its children."""
        self._keys = []
        for record, parent in zip(self._records, self._parents, strict=True):
            # They are frozen; to make them anew would be measured too.
            record.__dict__["parent_event_id"] = None if parent is None else self._keys[parent]
            yield record

    def note(self, key: UUID | None) -> None:
        """Take the key of the record that was yielded last."""
        self._keys.append(key)


def _transformation(row: workload.Row) -> Transformation:
    return Transformation(
        target_agent=row["target_agent"],
        source_agent=row["source_agent"],
        reason=row["transformation_reason"],
        context_snapshot=row["context_snapshot"],
        user_request=row["user_request"],
        correlation_id=row["correlation_id"],
        session_id=row["session_id"],
        routing_confidence=row["routing_confidence"],
        routing_strategy=row["routing_strategy"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        transformation_duration_ms=row["transformation_duration_ms"],
        initialization_duration_ms=row["initialization_duration_ms"],
        total_execution_duration_ms=row["total_execution_duration_ms"],
        success=row["success"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        quality_score=row["quality_score"],
    )


def decisions(count: int) -> list[RoutingDecision]:
    """Make routing decisions with contexts of about 1 KB."""
    now = datetime.now(UTC)
    span = workload.Span(now - timedelta(minutes=5), now)
    rows = map(workload.as_values, workload.metrics(count, span))
    contexts = [row["context_snapshot"] for row in map(workload.as_values, _context_rows(span))]
    return [
        _decision(row, contexts[place % len(contexts)], number=place)
        for place, row in enumerate(rows)
    ]


def _context_rows(span: workload.Span) -> Iterator[workload.Row]:
    return workload.events(1000, span)


def _decision(row: workload.Row, context: Any, *, number: int) -> RoutingDecision:
    components = ("trigger", "context", "capability", "historical")
    others = [Alternative(**other) for other in row["alternative_agents"]]
    return RoutingDecision(
        selected_agent=row["selected_agent"],
        strategy=row["selection_strategy"],
        confidence=Confidence(**{name: row[f"{name}_confidence"] for name in components}),
        alternatives=tuple(others),
        timings_us=Timings(
            cache_lookup=row["cache_lookup_us"],
            trigger_matching=row["trigger_matching_us"],
            confidence_scoring=row["confidence_scoring_us"],
            total=row["total_routing_time_us"],
        ),
        cache_hit=row["cache_hit"],
        cache_key=row["cache_key"],
        cache_age_seconds=row["cache_age_seconds"],
        user_request=f"request {number}: make the tests of the billing service green again",
        context=context,
        metric_type=row["metric_type"],
    )


def event_row(record: Transformation) -> tuple[Any, ...]:
    """Write the row as one would by hand, in the order of EVENT_COLUMNS."""
    started_at = record.started_at or datetime.now(UTC)
    context = orjson.dumps(record.context_snapshot)
    return (
        uuid7_at(started_at), record.event_type.value, record.correlation_id, record.session_id,
        record.source_agent, record.target_agent, record.reason, context.decode(),
        list(record.context_snapshot or ()), len(context), record.user_request,
        _score(record.routing_confidence), record.routing_strategy,
        record.transformation_duration_ms, record.initialization_duration_ms,
        record.total_execution_duration_ms, record.success, record.error_message,
        record.error_type, _score(record.quality_score), record.agent_definition_id,
        record.parent_event_id, started_at, record.completed_at,
    )  # fmt: skip


def metric_row(record: RoutingDecision) -> tuple[Any, ...]:
    """Write the row as one would by hand, in the order of METRIC_COLUMNS."""
    measured_at = datetime.now(UTC)
    confidence, timings = record.confidence or Confidence(), record.timings_us or Timings()
    others = [other.__dict__ for other in record.alternatives]
    context = orjson.dumps(record.context, option=orjson.OPT_SORT_KEYS)
    return (
        uuid7_at(measured_at), record.metric_type, record.correlation_id or uuid4(),
        hashlib.sha256((record.user_request or "").encode()).hexdigest(),
        hashlib.sha256(context).hexdigest(), record.selected_agent, record.strategy,
        _score(record.score), orjson.dumps(others).decode(), len(others), timings.cache_lookup,
        timings.trigger_matching, timings.confidence_scoring, timings.total,
        _score(confidence.trigger), _score(confidence.context), _score(confidence.capability),
        _score(confidence.historical), record.cache_hit, record.cache_key,
        record.cache_age_seconds, measured_at,
    )  # fmt: skip


def _score(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(value))
