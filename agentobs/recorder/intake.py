"""From a record to an entry of the buffer: what the host's call must do, and no more.

A context may change after the call, so its JSON is made here; a request is hashed here, so that
nothing of it is kept. Everything else is left to the writer.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentobs.errors import InvalidValueError
from agentobs.keys import uuid7_now, uuid7_with
from agentobs.recorder.entries import DecisionEntry, Entry, Kind
from agentobs.recorder.records import (
    Decision,
    FeedbackRecord,
    Hashes,
    Outcome,
    RoutingDecision,
    Transformation,
    UnrecordedDecision,
    hashes_of,
)
from agentobs.recorder.rows import (
    TEXT_LIMIT,
    Place,
    RunEnd,
    end_of,
    event_values,
)
from agentobs.recorder.run import Run, UnrecordedRun
from agentobs.recorder.sanitize import (
    MARKER,
    EncodedJson,
    context_keys,
    encode_context,
)
from agentobs.recorder.trace_context import TraceContext, current_context

if TYPE_CHECKING:
    from collections.abc import Callable

    Redact = Callable[[Any], Any]

logger = logging.getLogger("agentobs.recorder")

_MOST_NAMES, _NAME_LENGTH = 1000, 255
_KEY_BITS, _RANDOM_BITS = 128, 62
# Of a random UUID, version 4; by its own argument it takes a UUID twice as long.
_KEY_MASK = ~(0xF << 76 | 0b11 << 62)
_KEY_VERSION = 4 << 76 | 0b10 << 62
# Of the instant the key tells.
_UNSTORED = dict.fromkeys(("context", "user_request", "correlation_id", "measured_at"))
# What stands for a context on which the hook failed.
_WITHHELD = EncodedJson(f'{{"{MARKER}":{{"redaction_failed":true}}}}', 2, 1, False)


class Intake:
    """Makes entries. `redact` gets each context and request before anything else sees it."""

    def __init__(self, context_limit: int, redact: Redact | None, *, is_lenient: bool) -> None:
        self._limit = context_limit
        self._redact = redact
        self._is_lenient = is_lenient
        self._has_hook_failed = False
        # Not the random module's own: a host that seeds it in each process would repeat keys.
        self._bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 (keys are no secrets)

    def decision(self, record: RoutingDecision) -> tuple[Decision, Entry]:
        """Take a routing decision."""
        _require("record", record, RoutingDecision)
        bits = self._bits(_RANDOM_BITS)
        at = record.measured_at
        key = uuid7_now(bits) if at is None else uuid7_with(at, bits)
        here = current_context()
        # Outside of any workflow it begins one, whose key may as well be its own.
        correlation_id = record.correlation_id or (key if here is None else here.correlation_id)
        entry = DecisionEntry(key, correlation_id, self._fields(record))
        for other in record.alternatives:
            _weigh(entry, other.reason)
        return Decision(key, correlation_id, record), entry

    def _fields(self, record: RoutingDecision) -> dict[str, Any]:
        """Return what is stored of a decision: not what is hashed, which may be large."""
        hashes = record.hashes if self._redact is None else self._hashes(record)
        fields = record.__dict__ | _UNSTORED
        fields["hashes"] = hashes
        return fields

    def whole(self, record: Transformation | RoutingDecision) -> Entry:
        """Take what a host reports whole; of a transformation that goes on no end will follow."""
        if isinstance(record, RoutingDecision):
            return self.decision(record)[1]
        facts = self.facts(record, None)
        return facts.entry(end_of(record, facts.started_at))

    def facts(self, record: Transformation, decision: Decision | None) -> EventFacts:
        """Take what is known of a run when it begins."""
        _require("record", record, Transformation)
        if decision is not None:
            _require("decision", decision, Decision)
        started_at = record.started_at or datetime.now(UTC)
        key = uuid7_with(started_at, self._bits(_RANDOM_BITS))
        snapshot = record.context_snapshot
        place = self._place(record, decision)
        values = event_values(key, started_at, record, place, self.request(record.user_request))
        if snapshot is None:
            return EventFacts(place, values, None)
        # As it is stored: what the hook took out has no name there either.
        context = self._redacted(snapshot)
        encoded = self._encoded(context)
        values["context_snapshot"] = encoded.text
        values["context_keys"] = [] if context is None else _names(context, encoded)
        values["context_size_bytes"] = encoded.size
        return EventFacts(place, values, encoded)

    def _place(self, record: Transformation, decision: Decision | None) -> Place:
        """Find out what the decision and the surrounding run say; the record's own words win."""
        here, workflow = current_context(), record.correlation_id
        if here is None:
            made_in = decision and decision.correlation_id
            here = TraceContext(workflow or made_in or self._correlation(None))
        elif workflow is not None and workflow != here.correlation_id:
            # A parent and its child share their workflow.
            here = TraceContext(workflow)
        return Place(
            here.correlation_id,
            record.parent_event_id or here.parent_event_id,
            record.session_id or here.session_id,
            record.source_agent if record.source_agent is not None else here.agent,
            _first(record.routing_confidence, decision and decision.confidence_score),
            _first(record.routing_strategy, decision and decision.strategy),
        )

    def unrecorded_decision(self, record: object, values: Mapping[str, Any]) -> Decision:
        """Return a decision for the host to go on with, of which there will be no row."""
        agent = values.get("selected_agent")
        made = (
            record
            if isinstance(record, RoutingDecision)
            else RoutingDecision.model_construct(selected_agent=agent)
        )
        key = uuid7_with(datetime.now(UTC), self._bits(_RANDOM_BITS))
        return UnrecordedDecision(key, self._correlation(current_context()), made)

    def unrecorded_run(self, record: object, values: Mapping[str, Any]) -> Run:
        """Return a run for the host to go on with, of which there will be no row."""
        agent = values.get("target_agent", "")
        made = (
            record
            if isinstance(record, Transformation)
            else Transformation.model_construct(target_agent=agent)
        )
        facts = self.facts(Transformation.model_construct(target_agent=""), None)
        return UnrecordedRun(facts, made)

    def outcome(
        self, decision: Decision | UUID | str, success: bool | None, quality_score: float | None
    ) -> Entry:
        """Take what came of a decision."""
        outcome = Outcome(success=success, quality_score=quality_score)
        values = {
            "selection_validated": True,
            "actual_success": outcome.success,
            "actual_quality_score": outcome.quality_score,
            "validated_at": datetime.now(UTC),
        }
        return Entry(Kind.OUTCOME, key_of(decision), lambda: values)

    def feedback(
        self,
        decision: Decision | UUID | str,
        feedback_type: str,
        details: Mapping[Any, Any] | None,
    ) -> Entry:
        """Take what a person said of a decision."""
        record = FeedbackRecord(feedback_type=feedback_type, details=details)
        encoded = self.context(record.details)
        values = {
            "feedback_provided": True,
            "feedback_type": record.feedback_type,
            "feedback_details": encoded and encoded.text,
        }
        return _entry(Kind.FEEDBACK, key_of(decision), lambda: values, encoded)

    def context(self, context: Mapping[Any, Any] | None) -> EncodedJson | None:
        """Redact a context and encode it, as it is now."""
        if context is None:
            return None
        return self._encoded(self._redacted(context))

    def request(self, request: str | None) -> str | None:
        """Redact a request."""
        if request is None or self._redact is None:
            return request
        redacted = self._call_redact(request, None)
        return redacted if redacted is None or isinstance(redacted, str) else str(redacted)

    def _correlation(self, here: TraceContext | None) -> UUID:
        if here is not None:
            return here.correlation_id
        return UUID(int=self._bits(_KEY_BITS) & _KEY_MASK | _KEY_VERSION)

    def _hashes(self, record: RoutingDecision) -> Hashes:
        context = None if record.context is None else self._redacted(record.context)
        return hashes_of(self.request(record.user_request), context)

    def _encoded(self, redacted: Mapping[Any, Any] | None) -> EncodedJson:
        return _WITHHELD if redacted is None else encode_context(redacted, self._limit)

    def _redacted(self, context: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
        """Return what the hook leaves of a context; None where it failed."""
        if self._redact is None:
            return context
        redacted = self._call_redact(context, _WITHHELD)
        if redacted is _WITHHELD:
            return None
        return redacted if isinstance(redacted, Mapping) else {"value": redacted}

    def _call_redact(self, value: Any, instead: Any) -> Any:
        """Call the host's hook; what it fails on is not stored."""
        try:
            return self._redact(value) if self._redact else value
        except Exception as error:
            if not self._is_lenient:
                raise
            if not self._has_hook_failed:
                self._has_hook_failed = True
                name = type(error).__name__
                logger.error("redact failed, and what it fails on is not stored: %s", name)  # noqa: TRY400 (its words may quote what was recorded)
            return instead


class EventFacts:
    """What is known of a run when it begins, from which its rows are made."""

    __slots__ = ("_context", "_values", "place")

    def __init__(self, place: Place, values: dict[str, Any], context: EncodedJson | None) -> None:
        self.place = place
        self._values = values
        self._context = context

    @property
    def id(self) -> UUID:
        """The key of the run's row."""
        key: UUID = self._values["id"]
        return key

    @property
    def started_at(self) -> datetime:
        """When the run began."""
        instant: datetime = self._values["started_at"]
        return instant

    @property
    def placing(self) -> dict[str, Any]:
        """The values that say where and when the run is."""
        return {"id": self.id, "started_at": self.started_at, **self.place._asdict()}

    def entry(
        self, end: RunEnd, *, is_start: bool = False, elsewhere: EventFacts | None = None
    ) -> Entry:
        """Return the row of the run with this end, in its own place or in that of other facts."""
        values = self._values | end._asdict()
        if elsewhere is not None:
            values |= elsewhere.placing
        entry = _entry(Kind.TRANSFORMATION, values["id"], values, self._context)
        entry.is_start = is_start
        for text in values["user_request"], values["transformation_reason"], end.error_message:
            _weigh(entry, text)
        if is_start:
            # Counted with its end.
            entry.changes = entry.cuts = 0
        return entry


def _weigh(entry: Entry, text: str | None) -> None:
    """Count a text of a row; what is too long is cut now, and not kept until it is written."""
    if text is None:
        return
    size = len(text)
    if size > TEXT_LIMIT:
        size, _ = TEXT_LIMIT, entry.values
    entry.size += size


def _require(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InvalidValueError(name, f"must be a {kind.__name__}")


def _names(context: Mapping[Any, Any], encoded: EncodedJson) -> list[str]:
    names = context_keys(context)
    # Of a context that is cut, the names may be most of it.
    return [name[:_NAME_LENGTH] for name in names[:_MOST_NAMES]] if encoded.is_cut else names


def _first(value: Any, other: Any) -> Any:
    return other if value is None else value


def key_of(decision: Decision | UUID | str) -> UUID:
    """Return the key of a decision; raise InvalidValueError for what is none."""
    if isinstance(decision, Decision):
        return decision.id
    try:
        return decision if isinstance(decision, UUID) else UUID(decision)
    except (AttributeError, TypeError, ValueError):
        raise InvalidValueError("decision", "must be a Decision, or its id") from None


def _entry(
    kind: Kind,
    key: UUID,
    made: dict[str, Any] | Callable[[], dict[str, Any]],
    encoded: EncodedJson | None,
) -> Entry:
    if encoded is None:
        return Entry(kind, key, made)
    entry = Entry(kind, key, made, len(encoded.text))
    entry.changes, entry.cuts = encoded.changes, int(encoded.is_cut)
    return entry
