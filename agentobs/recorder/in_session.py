"""Records in a transaction of the host's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentobs import jsonb
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.recorder.intake import Intake
from agentobs.recorder.records import RoutingDecision
from agentobs.settings import RecorderSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.records import Decision, Transformation

_JSON = ("context_snapshot", "alternative_agents")


def record_in(
    session: AsyncSession,
    record: RoutingDecision | Transformation,
    *,
    redact: Callable[[Any], Any] | None = None,
) -> Decision | UUID:
    """Add a record to the session: it is written, and committed or rolled back, with the rest.

    Returns the decision, or the key of the transformation. The record is sanitised, hashed and
    placed in its workflow as by a recorder, of which none is needed; its parent is the one that it
    names. Nothing is flushed; errors of the database come with the flush.
    """
    limit = RecorderSettings.model_fields["context_limit"].default
    intake = Intake(limit, redact, is_lenient=False)
    if isinstance(record, RoutingDecision):
        decision, entry = intake.decision(record)
        session.add(RouterPerformanceMetric(**_attributes(entry)))
        return decision
    entry = intake.whole(record)
    # The row of a run that goes on is not there yet, and the host's transaction would fail by it.
    entry.values["parent_event_id"] = record.parent_event_id
    session.add(AgentTransformationEvent(**_attributes(entry)))
    return entry.id


def _attributes(entry: Entry) -> dict[str, Any]:
    values = entry.values
    decoded = {name: jsonb.decode(values[name]) for name in _JSON if values.get(name) is not None}
    return values | decoded
