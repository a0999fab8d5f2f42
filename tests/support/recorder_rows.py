"""Records as a recorder's writer has them, ready for the driver, and changes of their rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from support.event_rows import INSTANTS

from agentobs import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.keys import uuid7_at
from agentobs.recorder.writing.statements import Completion, Feedback, Outcome, insert_records

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.models.base import Base

Event, Metric = AgentTransformationEvent, RouterPerformanceMetric
MODELS: list[type[Base]] = [Event, Metric]
NOW = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)

# Of each type some column, and a NULL.
_ROWS: dict[type[Base], dict[str, Any]] = {
    Event: {
        "event_type": "transformation_start",
        "correlation_id": UUID(int=1),
        "target_agent": "agent-ü",
        "context_snapshot": '{"big": 1180591620717411303424, "list": [1, null, "ü"]}',
        "context_keys": ["task", 'pl"an', ""],
        "context_size_bytes": 17,
        "routing_confidence": Decimal("0.8125"),
        "success": True,
        "error_message": None,
    },
    Metric: {
        "metric_type": "routing_decision",
        "user_request_hash": "a" * 64,
        "confidence_score": Decimal("0.8125"),
        "alternative_agents": '[{"agent": "a", "confidence": 0.5}]',
        "alternatives_count": 1,
        "cache_hit": False,
        "feedback_details": None,
    },
}


def records_of(
    model: type[Base], count: int, *, at: datetime = NOW, **values: Any
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return columns, and so many records of them; their ids are in order."""
    row = _ROWS[model] | values
    instants = [at + timedelta(microseconds=number) for number in range(count)]
    columns = ["id", INSTANTS[model.__tablename__], *row]
    return columns, [(uuid7_at(instant), instant, *row.values()) for instant in instants]


async def stored(
    connection: AsyncConnection,
    model: type[Base],
    count: int,
    *,
    at: datetime = NOW,
    **values: Any,
) -> list[UUID]:
    """Store so many records, and return their ids."""
    columns, records = records_of(model, count, at=at, **values)
    await insert_records(connection, model, columns, records)
    return [record[0] for record in records]


def outcome(key: UUID, **values: Any) -> Outcome:
    return Outcome(key, True, Decimal("0.5"), NOW, is_late=False)._replace(**values)


def feedback(key: UUID, **values: Any) -> Feedback:
    return Feedback(key, "positive", None)._replace(**values)


def completion(key: UUID, **values: Any) -> Completion:
    return Completion(
        id=key,
        event_type="transformation_failed",
        success=False,
        error_type="TimeoutError",
        error_message="too slow",
        quality_score=Decimal("0.25"),
        transformation_duration_ms=1,
        initialization_duration_ms=2,
        total_execution_duration_ms=3,
        completed_at=NOW,
    )._replace(**values)
