"""From what was recorded to the values of a row, and from these to what the driver takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import orjson

from agentobs.keys import instant_of
from agentobs.models import AgentTransformationEvent, EventType, RouterPerformanceMetric
from agentobs.recorder.sanitize import MARKER, encode_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from agentobs.models.base import Base
    from agentobs.recorder.records import (
        Alternative,
        Confidence,
        Hashes,
        Timings,
        Transformation,
    )

# The most characters of a text without a bound of its own: requests, reasons, messages.
TEXT_LIMIT = 65_536

_NUMBERS = 10_000
# Names of columns whose text a host gives.
_TEXTS = (
    "source_agent",
    "target_agent",
    "transformation_reason",
    "user_request",
    "routing_strategy",
    "error_message",
    "error_type",
    "metric_type",
    "selected_agent",
    "selection_strategy",
    "cache_key",
    "feedback_type",
)


class Place(NamedTuple):
    """Where a run stands: its workflow, and what led to it."""

    correlation_id: UUID
    parent_event_id: UUID | None
    session_id: UUID | None
    source_agent: str | None
    routing_confidence: float | None
    routing_strategy: str | None


class RunEnd(NamedTuple):
    """How a run ended; what is None is not known (yet)."""

    event_type: str = EventType.START
    success: bool | None = None
    error_type: str | None = None
    error_message: str | None = None
    quality_score: float | None = None
    transformation_duration_ms: int | None = None
    initialization_duration_ms: int | None = None
    total_execution_duration_ms: int | None = None
    completed_at: datetime | None = None


def decision_values(key: UUID, correlation_id: UUID, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row of router_performance_metrics, of the fields of its record."""
    hashes: Hashes = record["hashes"]
    confidence: Confidence | None = record["confidence"]
    timings: Timings | None = record["timings_us"]
    alternatives: tuple[Alternative, ...] = record["alternatives"]
    score = record["confidence_score"]
    values = {
        "id": key,
        "metric_type": record["metric_type"],
        "correlation_id": correlation_id,
        "user_request_hash": hashes.request,
        "context_hash": hashes.context,
        "selected_agent": record["selected_agent"],
        "selection_strategy": record["strategy"],
        "confidence_score": confidence.score if score is None and confidence else score,
        "alternatives_count": len(alternatives),
        "cache_hit": record["cache_hit"],
        "cache_key": record["cache_key"],
        "cache_age_seconds": record["cache_age_seconds"],
        "feedback_provided": False,
        "measured_at": instant_of(key),
    }
    if alternatives:
        values["alternative_agents"] = [other.__dict__ for other in alternatives]
    if confidence is not None:
        values["trigger_confidence"] = confidence.trigger
        values["context_confidence"] = confidence.context
        values["capability_confidence"] = confidence.capability
        values["historical_confidence"] = confidence.historical
    if timings is not None:
        values["cache_lookup_us"] = timings.cache_lookup
        values["trigger_matching_us"] = timings.trigger_matching
        values["confidence_scoring_us"] = timings.confidence_scoring
        values["total_routing_time_us"] = timings.total
    return values


def event_values(
    key: UUID,
    started_at: datetime,
    record: Transformation,
    place: Place,
    user_request: str | None,
) -> dict[str, Any]:
    """Return what a row of agent_transformation_events has from the start, without its context."""
    return {
        "id": key,
        "correlation_id": place.correlation_id,
        "session_id": place.session_id,
        "source_agent": place.source_agent,
        "target_agent": record.target_agent,
        "transformation_reason": record.reason,
        "user_request": user_request,
        "routing_confidence": place.routing_confidence,
        "routing_strategy": place.routing_strategy,
        "agent_definition_id": record.agent_definition_id,
        "parent_event_id": place.parent_event_id,
        "started_at": started_at,
    }


def end_of(record: Transformation, started_at: datetime) -> RunEnd:
    """Return the end of a run that a host reports whole."""
    completed_at = record.completed_at
    if completed_at is None and record.success is not None:
        completed_at = started_at + timedelta(milliseconds=record.total_execution_duration_ms or 0)
    return RunEnd(
        record.event_type,
        record.success,
        record.error_type,
        record.error_message,
        record.quality_score,
        record.transformation_duration_ms,
        record.initialization_duration_ms,
        record.total_execution_duration_ms,
        completed_at,
    )


def predict(values: dict[str, Any]) -> None:
    """Fill in by how much the router's confidence was off, where both numbers are known."""
    confidence, quality = values.get("confidence_score"), values.get("actual_quality_score")
    if confidence is not None and quality is not None:
        values["prediction_error"] = round(confidence - quality, 4)


def clean(values: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """Make every text of a row one that PostgreSQL stores.

    Returns how many values were changed and how many were cut, too. Of an event the first number
    stands in its context, under the key of our own.
    """
    changes, cuts = 0, 0
    for name in _TEXTS:
        text = values.get(name)
        # Most are clean, which is told without a call.
        if text is None or (text.isascii() and "\x00" not in text and len(text) <= TEXT_LIMIT):
            continue
        values[name], found = sanitize_text(text)
        changes += found
        if len(text) > TEXT_LIMIT:
            values[name] = _cut(values[name])
            cuts += 1
    alternatives = values.get("alternative_agents")
    if isinstance(alternatives, list):
        shortened = [_shortened(other) for other in alternatives]
        cuts += sum(
            1 for one, other in zip(alternatives, shortened, strict=True) if one is not other
        )
        encoded = encode_json(shortened)
        values["alternative_agents"] = encoded.text
        changes += encoded.changes
    if changes and "started_at" in values:
        _note_changes(values, changes)
    return values, changes, cuts


def _shortened(alternative: Mapping[str, Any]) -> Mapping[str, Any]:
    reason = alternative.get("reason")
    if reason is None or len(reason) <= TEXT_LIMIT:
        return alternative
    return {**alternative, "reason": _cut(sanitize_text(reason)[0])}


def _cut(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: TEXT_LIMIT - 200]} … [cut: {len(text)} characters, SHA-256 {digest}]"


def _note_changes(values: dict[str, Any], changes: int) -> None:
    context = orjson.loads(values.get("context_snapshot") or "{}")
    notes = context.setdefault(MARKER, {})
    notes["sanitised"] = notes.get("sanitised", 0) + changes
    values["context_snapshot"] = orjson.dumps(context).decode()


def decimal_of(score: float | Decimal) -> Decimal:
    """Return the number as numeric(5,4) stores it."""
    return score if isinstance(score, Decimal) else _decimal(round(score * _NUMBERS))


# Scores have four places: there are 20,001 from -1 to 1.
@lru_cache(maxsize=32_768)
def _decimal(ten_thousandths: int) -> Decimal:
    return Decimal(ten_thousandths) / _NUMBERS


def instant_from(value: datetime | str) -> datetime:
    """Return the instant, which a spool holds as text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value).astimezone(UTC)


class Layout:
    """The columns of a table in the order in which its rows are sent."""

    def __init__(self, model: type[Base]) -> None:
        columns = list(model.__table__.columns)
        self.model = model
        self.columns = tuple(column.name for column in columns)
        self._converted: tuple[tuple[int, Callable[[Any], Any]], ...] = tuple(
            (index, convert)
            for index, column in enumerate(columns)
            if (convert := _CONVERTED.get(type(column.type).__name__)) is not None
        )

    def records(self, rows: Iterable[dict[str, Any]]) -> Records:
        """Return the rows as the driver takes them, each made when it is asked for."""
        return Records(self, list(rows))

    def record(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """Return one row as the driver takes it."""
        row = list(map(values.get, self.columns))
        for index, convert in self._converted:
            if (value := row[index]) is not None:
                row[index] = convert(value)
        return tuple(row)


class Records(Sequence[tuple[Any, ...]]):
    """Rows as the driver takes them: the server begins with the first while the last is made."""

    def __init__(self, layout: Layout, rows: Sequence[dict[str, Any]]) -> None:
        self._layout = layout
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[tuple[Any, ...]]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, int):
            return self._layout.record(self._rows[place])
        return [self._layout.record(row) for row in self._rows[place]]


_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "Numeric": decimal_of,
    "AwareTimestamp": instant_from,
}

EVENTS = Layout(AgentTransformationEvent)
METRICS = Layout(RouterPerformanceMetric)
