"""What a host hands to a recorder: records with the bounds that the schema has.

A record holds what the caller knows; keys, hashes, sizes and sums are the recorder's to make. No
`repr` and no error shows a context, a request or a reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)

from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH
from agentobs.models import EventType, MetricType
from agentobs.models.vocabulary import (
    CAPABILITY_WEIGHT,
    CONTEXT_WEIGHT,
    HISTORICAL_WEIGHT,
    TRIGGER_WEIGHT,
)
from agentobs.recorder.sanitize import hash_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails

_PLACES = 4
# The kinds of faults whose words hold some of the value.
_QUOTING = {"iteration_error", "mapping_type", "uuid_parsing"}
_MOST_ALTERNATIVES = 1_000
_LAST = datetime.max.replace(tzinfo=UTC)
# What a block finds out itself.
_ENDS = (
    "success",
    "completed_at",
    "total_execution_duration_ms",
    "error_type",
    "error_message",
)
_INTEGER_MAX = 2**31 - 1
# The fields that a host means where it gives an agent's name in place of a record.
_AGENTS = {"selected_agent", "target_agent"}


def _within_0_and_1(value: float) -> float:
    """Round as numeric(5,4) does, then compare: a weighted sum of 1.0000000000000002 is 1."""
    rounded = round(value, _PLACES)
    if not 0 <= rounded <= 1:
        raise ValueError("must be within 0 and 1")
    return rounded


def _storable(instant: datetime) -> datetime:
    if instant < EPOCH:
        raise ValueError("must not lie before 1970, where time-ordered keys begin")
    if instant > _LAST:
        raise ValueError("must not lie beyond the year 9999 of UTC, where instants end")
    return instant


def _not_zero(key: UUID) -> UUID:
    if not key.int:
        raise ValueError("must not be zero, which no traceparent takes: leave it out for a new one")
    return key


def _text(value: object) -> str:
    # Pydantic's own check refuses lone surrogates, which are the writer's to replace and count.
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return str.__str__(value)


def _text_of(length: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        text = _text(value)
        if len(text) > length:
            raise ValueError(f"must have at most {length} characters")
        return text

    return check


Name = Annotated[str, PlainValidator(_text_of(255))]
Label = Annotated[str, PlainValidator(_text_of(100))]
ShortLabel = Annotated[str, PlainValidator(_text_of(50))]
LongText = Annotated[str, PlainValidator(_text)]
Score = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_within_0_and_1)]
Whole = Annotated[int, Field(ge=0, le=_INTEGER_MAX)]
Instant = Annotated[AwareDatetime, AfterValidator(_storable)]
Workflow = Annotated[UUID, AfterValidator(_not_zero)]
# Never shown: what it holds may be a secret.
Secret = Field(default=None, repr=False)


class Record(BaseModel):
    """What all records share: they are frozen, take no unknown field, and quote no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **values: Any) -> None:
        """Check the values; raise InvalidValueError that names the field."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            field = ".".join([type(self).__name__, *map(str, fault["loc"])])
            raise InvalidValueError(field, f"is refused: {_rule(fault, type(self))}") from None


def _rule(fault: ErrorDetails, kind: type[Record]) -> str:
    if fault["type"] == "too_long":
        return f"must be at most {_MOST_ALTERNATIVES}: give those that came closest"
    if fault["type"] == "timezone_aware":
        return "must have a time zone: datetime.now(UTC) has one, and datetime.now() has none"
    if fault["type"] == "extra_forbidden":
        return f"no such field, there are: {_fields_of(kind)}"
    if fault["type"] == "missing":
        return f"must be given; the fields are: {_fields_of(kind)}"
    if fault["type"] == "model_type":
        inner = _kind_named(fault["ctx"]["class_name"])
        return f"must be a mapping, or a record {inner.__name__}, of: {_fields_of(inner)}"
    message = fault["msg"].removeprefix("Value error, ")
    # What comes behind the comma quotes a character, or what a method of the value raised.
    return message.partition(",")[0] if fault["type"] in _QUOTING else message


def _fields_of(kind: type[Record]) -> str:
    return ", ".join(kind.model_fields)


def _kind_named(name: str) -> type[Record]:
    return next(kind for kind in Record.__subclasses__() if kind.__name__ == name)


class Confidence(Record):
    """How sure the router is, 0 to 1, by each of its four components; None adds nothing."""

    trigger: Score | None = None
    context: Score | None = None
    capability: Score | None = None
    historical: Score | None = None

    @property
    def score(self) -> float:
        """The weighted sum: 40 % trigger, 30 % context, 20 % capability, 10 % history."""
        total = (
            TRIGGER_WEIGHT * (self.trigger or 0)
            + CONTEXT_WEIGHT * (self.context or 0)
            + CAPABILITY_WEIGHT * (self.capability or 0)
            + HISTORICAL_WEIGHT * (self.historical or 0)
        )
        return round(total, _PLACES)


class Alternative(Record):
    """Another candidate of the router, with what spoke for it."""

    agent: Name
    confidence: Score | None = None
    reason: LongText | None = Secret


# Of what gives them without end, no more than that is read.
Alternatives = Annotated[tuple[Alternative, ...], Field(max_length=_MOST_ALTERNATIVES), FailFast()]


class Timings(Record):
    """How long a decision took, in microseconds: its parts, and all of it."""

    cache_lookup: Whole | None = None
    trigger_matching: Whole | None = None
    confidence_scoring: Whole | None = None
    total: Whole | None = None


class Hashes(NamedTuple):
    """SHA-256, in hexadecimal digits, of a request and of a context; None of what is not there."""

    request: str | None
    context: str | None


def hashes_of(request: str | None, context: Mapping[Any, Any] | None) -> Hashes:
    """Compute them; the same context in another order has the same one."""
    return Hashes(
        None if request is None else hashlib.sha256(request.encode(errors="replace")).hexdigest(),
        None if context is None else hash_json(context),
    )


class RoutingDecision(Record):
    """One decision of the router.

    `confidence_score` is the weighted sum of `confidence` unless it is given. The request and the
    context are hashed when the record is made, and not stored. `correlation_id` is that of the
    workflow which the caller is in, else a new one; `measured_at` is now unless given.
    """

    selected_agent: Name | None = None
    strategy: Label | None = None
    confidence: Confidence | None = None
    confidence_score: Score | None = None
    alternatives: Alternatives = ()
    timings_us: Timings | None = None
    cache_hit: bool | None = None
    cache_key: Name | None = None
    cache_age_seconds: Whole | None = None
    user_request: LongText | None = Secret
    context: Mapping[Any, Any] | None = Secret
    metric_type: Label = MetricType.ROUTING_DECISION.value
    correlation_id: Workflow | None = None
    measured_at: Instant | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Take the hashes now: the context is the caller's, who may change it later."""
        del context
        _ = self.hashes

    @property
    def hashes(self) -> Hashes:
        """What is stored of the request and the context."""
        # No cached_property: all records share its lock, which a forked child may find taken.
        kept: Hashes | None = self.__dict__.get("hashes")
        if kept is None:
            kept = self.__dict__["hashes"] = hashes_of(self.user_request, self.context)
        return kept

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> RoutingDecision:
        """Copy the record, as any model; the hashes are those of what the copy holds."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("hashes", None)
        return copied

    @property
    def score(self) -> float | None:
        """The confidence in the selected agent: as given, or the weighted sum."""
        if self.confidence_score is not None or self.confidence is None:
            return self.confidence_score
        return self.confidence.score


def _with_an_end(milliseconds: int | None, others: ValidationInfo) -> int | None:
    started_at: datetime | None = others.data.get("started_at")
    if started_at is not None and not _ends_in_time(started_at, milliseconds or 0):
        raise ValueError("must end within the year 9999 of UTC, where instants end")
    return milliseconds


def _ends_in_time(started_at: datetime, milliseconds: int) -> bool:
    try:
        return started_at + timedelta(milliseconds=milliseconds) <= _LAST
    except OverflowError:
        return False


class Transformation(Record):
    """One agent taking on another's identity: what is known when it begins, and how it ended.

    `success` is None as long as it runs. `started_at` is now unless given, and `completed_at` is
    the start and the total duration. Durations are in milliseconds.
    """

    target_agent: Name
    source_agent: Name | None = None
    reason: LongText | None = Secret
    context_snapshot: Mapping[Any, Any] | None = Secret
    user_request: LongText | None = Secret
    correlation_id: Workflow | None = None
    session_id: UUID | None = None
    parent_event_id: UUID | None = None
    agent_definition_id: UUID | None = None
    routing_confidence: Score | None = None
    routing_strategy: Label | None = None
    started_at: Instant | None = None
    completed_at: Instant | None = None
    transformation_duration_ms: Whole | None = None
    initialization_duration_ms: Whole | None = None
    total_execution_duration_ms: Annotated[Whole | None, AfterValidator(_with_an_end)] = None
    success: bool | None = None
    error_type: Label | None = None
    error_message: LongText | None = Secret
    quality_score: Score | None = None

    @property
    def event_type(self) -> EventType:
        """How far it has come, by `success`."""
        if self.success is None:
            return EventType.START
        return EventType.COMPLETE if self.success else EventType.FAILED


class Outcome(Record):
    """What came of a routing decision."""

    success: bool | None = None
    quality_score: Score | None = None


class FeedbackRecord(Record):
    """What a person said of a routing decision; `feedback_type` is a word of FeedbackType's."""

    feedback_type: ShortLabel
    details: Mapping[Any, Any] | None = Secret


class Decision:
    """A routing decision that a recorder has taken: its key, and the record."""

    __slots__ = ("correlation_id", "id", "record")

    def __init__(self, id: UUID, correlation_id: UUID, record: RoutingDecision) -> None:  # noqa: A002 (the column's name)
        self.id = id
        self.correlation_id = correlation_id
        self.record = record

    def __repr__(self) -> str:
        return f"Decision(id={self.id!s}, selected_agent={self.selected_agent!r})"

    @property
    def selected_agent(self) -> str | None:
        """The agent that was chosen."""
        return self.record.selected_agent

    @property
    def strategy(self) -> str | None:
        """How it was chosen."""
        return self.record.strategy

    @property
    def confidence_score(self) -> float | None:
        """How sure the router was, 0 to 1."""
        return self.record.score


class UnrecordedDecision(Decision):
    """A decision that was refused: a host goes on with it, and there will be no row."""

    __slots__ = ()


class DroppedDecision(Decision):
    """A decision that found no room: there will be no row of it either."""

    __slots__ = ()


_Given = TypeVar("_Given", RoutingDecision, Transformation)


def one_of(record: _Given | None, kind: type[_Given], values: Any) -> _Given:
    """Return the record, or one of these fields; raise InvalidValueError for both."""
    if record is None:
        return kind(**values)
    if values:
        raise InvalidValueError(next(iter(values)), "stands beside a record: give one or the other")
    if not isinstance(record, kind):
        agent = next(name for name in kind.model_fields if name in _AGENTS)
        raise InvalidValueError("record", f"must be a {kind.__name__}: or give {agent}=…")
    return record


def require_no_end(record: Transformation) -> None:
    """Raise InvalidValueError for a record that tells its end, which a block finds out itself."""
    for name in _ENDS:
        if getattr(record, name) is not None:
            raise InvalidValueError(
                f"Transformation.{name}",
                "can't be given to a block, which finds it out itself: use recorder.record() for "
                "what was measured elsewhere",
            )
