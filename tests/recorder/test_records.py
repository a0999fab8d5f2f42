from __future__ import annotations

import re
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from threading import Event, Thread
from traceback import format_exception
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.models import CANARY
from support.recorders import PATIENCE

from agentobs import Alternative, Confidence, RoutingDecision, Transformation
from agentobs.errors import InvalidValueError
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.recorder import records
from agentobs.recorder.records import FeedbackRecord, Hashes, Outcome, Timings, hashes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs.recorder.records import Record

BIGGEST = 2**31 - 1


def refused(kind: type[Record], **values: Any) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        kind(**values)
    return caught.value


@pytest.mark.parametrize(
    ("components", "score"),
    [
        ({"trigger": 0.9, "context": 0.7, "capability": 0.8, "historical": 0.6}, 0.79),
        ({"trigger": 1, "context": 1, "capability": 1, "historical": 1}, 1.0),
        ({"trigger": 1}, 0.4),
        ({"context": 1}, 0.3),
        ({"capability": 1}, 0.2),
        ({"historical": 1}, 0.1),
        ({}, 0.0),
    ],
)
def test_a_confidence_weighs_its_components(components: dict[str, float], score: float) -> None:
    assert Confidence(**components).score == score


def test_a_decision_has_the_score_that_is_given_before_the_weighted_one() -> None:
    confidence = Confidence(trigger=1)

    assert RoutingDecision(confidence=confidence, confidence_score=0.125).score == 0.125
    assert RoutingDecision(confidence=confidence).score == 0.4
    assert RoutingDecision().score is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0, 0.0),
        (1, 1.0),
        (1.0000000000000002, 1.0),
        (0.12345, 0.1235),
        (-0.00001, 0.0),
        (Decimal("0.5"), 0.5),
    ],
)
def test_a_score_is_rounded_as_its_column_rounds_before_it_is_compared(
    given: Any, kept: float
) -> None:
    assert Outcome(quality_score=given).quality_score == kept


@pytest.mark.parametrize("score", [1.0001, -0.0001, float("nan"), float("inf"), "many"])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Confidence, "trigger"),
        (RoutingDecision, "confidence_score"),
        (Transformation, "quality_score"),
        (Transformation, "routing_confidence"),
        (Outcome, "quality_score"),
    ],
)
def test_a_score_out_of_bounds_is_refused(kind: type[Record], field: str, score: object) -> None:
    error = refused(
        kind, **{"target_agent": "a"} if kind is Transformation else {}, **{field: score}
    )

    assert error.column == f"{kind.__name__}.{field}"


@pytest.mark.parametrize(
    ("kind", "field", "column"),
    [
        (Transformation, "target_agent", AgentTransformationEvent.target_agent),
        (Transformation, "source_agent", AgentTransformationEvent.source_agent),
        (Transformation, "routing_strategy", AgentTransformationEvent.routing_strategy),
        (Transformation, "error_type", AgentTransformationEvent.error_type),
        (RoutingDecision, "selected_agent", RouterPerformanceMetric.selected_agent),
        (RoutingDecision, "strategy", RouterPerformanceMetric.selection_strategy),
        (RoutingDecision, "metric_type", RouterPerformanceMetric.metric_type),
        (RoutingDecision, "cache_key", RouterPerformanceMetric.cache_key),
        (FeedbackRecord, "feedback_type", RouterPerformanceMetric.feedback_type),
    ],
)
def test_a_text_may_be_as_long_as_its_column(kind: type[Record], field: str, column: Any) -> None:
    length = column.property.columns[0].type.length
    others = {"target_agent": "a"} if kind is Transformation else {}

    assert getattr(kind(**(others | {field: "ü" * length})), field) == "ü" * length
    assert refused(kind, **(others | {field: "ü" * (length + 1)})).column == (
        f"{kind.__name__}.{field}"
    )


@pytest.mark.parametrize(
    "field", ["cache_lookup", "trigger_matching", "confidence_scoring", "total"]
)
def test_a_duration_is_a_whole_number_that_its_column_holds(field: str) -> None:
    assert getattr(Timings(**{field: BIGGEST}), field) == BIGGEST
    for wrong in (BIGGEST + 1, -1, 0.5, "soon"):
        assert refused(Timings, **{field: wrong}).column == f"Timings.{field}"


def test_instants_have_a_time_zone_and_lie_within_the_time_of_keys() -> None:
    eastern = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert Transformation(target_agent="a", started_at=eastern).started_at == eastern

    for wrong in (
        datetime(2026, 1, 1),  # noqa: DTZ001 (what shall be refused)
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ):
        error = refused(Transformation, target_agent="a", started_at=wrong)
        assert error.column == "Transformation.started_at"


@pytest.mark.parametrize("kind", [RoutingDecision, Transformation, Alternative, Confidence])
def test_an_unknown_field_is_refused_by_its_name(kind: type[Record]) -> None:
    required = {Transformation: {"target_agent": "a"}, Alternative: {"agent": "a"}}

    error = refused(kind, confidense=1, **required.get(kind, {}))

    assert error.column == f"{kind.__name__}.confidense"


def test_a_field_that_is_missing_is_named() -> None:
    assert refused(Transformation).column == "Transformation.target_agent"


def test_the_error_of_an_inner_record_names_the_way_to_it() -> None:
    error = refused(RoutingDecision, alternatives=[{"agent": "a"}, {"confidence": 1.5}])

    assert str(error).startswith("RoutingDecision.alternatives.1 is refused: Alternative.")


def test_an_error_says_the_rule_of_the_bounds() -> None:
    assert refused(Confidence, trigger=2).rule == "is refused: must be within 0 and 1"


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"timings_us": {"totl": 1}}, "cache_lookup, trigger_matching, confidence_scoring, total"),
        ({"alternatives": [{"confidence": 0.5}]}, "agent, confidence, reason"),
        ({"alternatives": ["agent-x"]}, "agent, confidence, reason"),
        ({"confidence": 0.8}, "trigger, context, capability, historical"),
        ({"measured_at": datetime(2026, 1, 1)}, r"datetime\.now\(UTC\)"),  # noqa: DTZ001 (what shall be refused)
    ],
)
def test_an_error_says_what_would_be_taken(values: dict[str, Any], fix: str) -> None:
    assert re.search(fix, refused(RoutingDecision, **values).rule)


def test_a_record_can_not_be_changed() -> None:
    record = RoutingDecision(selected_agent="a")

    with pytest.raises(ValueError, match="frozen"):
        record.selected_agent = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    "context",
    [
        MappingProxyType({"a": 1}),
        ChainMap({"a": 1}, {"b": 2}),
        OrderedDict(a=1),
        UserDict(a=1),
        Counter("a"),
        defaultdict(int, a=1),
        {1: "one", None: "none", (1, 2): "pair"},
    ],
    ids=lambda context: type(context).__name__,
)
def test_a_context_may_be_any_mapping(context: Mapping[Any, Any]) -> None:
    record = Transformation(target_agent="a", context_snapshot=context)

    assert record.context_snapshot is not None
    assert dict(record.context_snapshot) == dict(context)


# What a field is given that it refuses, where the value itself is what must not be told.
WRONG: list[tuple[type[Record], dict[str, Any]]] = [
    (RoutingDecision, {"selected_agent": CANARY * 20}),
    (RoutingDecision, {"strategy": {"secret": CANARY}}),
    (RoutingDecision, {"confidence": CANARY}),
    (RoutingDecision, {"confidence": {"trigger": CANARY}}),
    (RoutingDecision, {"confidence_score": CANARY}),
    (RoutingDecision, {"alternatives": CANARY}),
    (RoutingDecision, {"alternatives": [{"agent": CANARY * 20, "reason": CANARY}]}),
    (RoutingDecision, {"timings_us": {"total": CANARY}}),
    (RoutingDecision, {"cache_hit": CANARY}),
    (RoutingDecision, {"cache_age_seconds": CANARY}),
    (RoutingDecision, {"user_request": [CANARY]}),
    (RoutingDecision, {"context": CANARY}),
    (RoutingDecision, {"correlation_id": CANARY}),
    (RoutingDecision, {"measured_at": CANARY}),
    (Transformation, {"target_agent": CANARY * 20, "reason": CANARY}),
    (Transformation, {"target_agent": "a", "context_snapshot": [CANARY]}),
    (Transformation, {"target_agent": "a", "session_id": CANARY}),
    (Transformation, {"target_agent": "a", "started_at": CANARY}),
    (Transformation, {"target_agent": "a", "success": CANARY}),
    (Transformation, {"target_agent": "a", "quality_score": CANARY}),
    (FeedbackRecord, {"feedback_type": CANARY * 20, "details": {"a": CANARY}}),
]


@pytest.mark.parametrize(
    ("kind", "values"), WRONG, ids=[f"{kind.__name__}-{[*values][-1]}" for kind, values in WRONG]
)
def test_an_error_quotes_no_value(kind: type[Record], values: dict[str, Any]) -> None:
    error = refused(kind, **values)

    chain = (error, error.__cause__, None if error.__suppress_context__ else error.__context__)
    assert CANARY not in "".join(f"{each} {each!r}" for each in chain)


def test_the_error_of_a_key_that_is_none_quotes_no_character_of_it() -> None:
    error = refused(Transformation, target_agent="a", session_id="Z" * 32)

    assert error.rule == "is refused: Input should be a valid UUID"


def test_no_repr_shows_what_may_be_secret() -> None:
    records = (
        RoutingDecision(
            user_request=CANARY,
            context={CANARY: CANARY},
            alternatives=[Alternative(agent="a", reason=CANARY)],
        ),
        Transformation(
            target_agent="a",
            reason=CANARY,
            context_snapshot={CANARY: CANARY},
            user_request=CANARY,
            error_message=CANARY,
            session_id=uuid4(),
        ),
        FeedbackRecord(feedback_type="positive", details={CANARY: CANARY}),
    )

    assert CANARY not in "".join(f"{record!r} {record!s}" for record in records)


def endless(other: object) -> tuple[Iterator[object], list[int]]:
    """Return alternatives without end, and how many were asked for."""
    asked: list[int] = []

    def give() -> Iterator[object]:
        for number in count(1):
            assert number < 10_000
            asked[:] = [number]
            yield other

    return give(), asked


@pytest.mark.parametrize("other", [{"agent": "a"}, {"agent": 7}, Alternative(agent="a")])
def test_alternatives_without_end_are_refused_after_a_thousand(other: object) -> None:
    alternatives, asked = endless(other)

    error = refused(RoutingDecision, alternatives=alternatives)

    assert error.column is not None
    assert error.column.startswith("RoutingDecision.alternatives")
    assert asked[0] <= 1_001


def test_a_decision_has_at_most_a_thousand_alternatives() -> None:
    alternatives = [{"agent": str(number)} for number in range(1_001)]

    assert len(RoutingDecision(alternatives=alternatives[1:]).alternatives) == 1_000
    assert len(RoutingDecision(alternatives=iter(alternatives[1:])).alternatives) == 1_000
    for many in (alternatives, tuple(alternatives), iter(alternatives)):
        error = refused(RoutingDecision, alternatives=many)
        assert error.column == "RoutingDecision.alternatives"
        assert error.rule == "is refused: must be at most 1000: give those that came closest"


@pytest.mark.parametrize("kind", [RoutingDecision, Transformation])
@pytest.mark.parametrize("nothing", [UUID(int=0), "0" * 32])
def test_a_workflow_has_a_key_that_a_traceparent_can_carry(
    kind: type[Record], nothing: object
) -> None:
    others = {"target_agent": "a"} if kind is Transformation else {}

    error = refused(kind, correlation_id=nothing, **others)

    assert error.column == f"{kind.__name__}.correlation_id"
    assert "zero" in error.rule
    assert "leave it out" in error.rule


@pytest.mark.parametrize(
    "started_at",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 11, 59, 59, 999999, tzinfo=timezone(-timedelta(hours=12))),
    ],
)
def test_a_run_ends_before_the_year_10000(started_at: datetime) -> None:
    values = {"target_agent": "a", "started_at": started_at, "success": True}

    error = refused(Transformation, total_execution_duration_ms=1, **values)

    assert error.column == "Transformation.total_execution_duration_ms"
    assert "year 9999" in error.rule
    assert Transformation(total_execution_duration_ms=0, **values).success


def test_no_record_waits_for_one_that_another_thread_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_hashed, may_go_on = Event(), Event()

    def hash_later(request: str | None, context: Mapping[Any, Any] | None) -> Hashes:
        is_hashed.set()
        assert request is None or may_go_on.wait(PATIENCE)
        return hashes_of(request, context)

    monkeypatch.setattr(records, "hashes_of", hash_later)
    slow = Thread(target=lambda: RoutingDecision(user_request="slow"), daemon=True)
    slow.start()
    assert is_hashed.wait(PATIENCE)
    quick = Thread(target=RoutingDecision, daemon=True)
    quick.start()
    quick.join(PATIENCE / 10)
    is_made = not quick.is_alive()
    may_go_on.set()
    slow.join(PATIENCE)

    assert is_made


class _Talkative(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise KeyError(CANARY)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (RoutingDecision, "context"),
        (Transformation, "context_snapshot"),
        (FeedbackRecord, "details"),
    ],
)
def test_an_error_quotes_nothing_that_a_method_of_the_value_raised(
    kind: type[Record], field: str
) -> None:
    needed = {"target_agent": "a", "feedback_type": "positive"}
    values = {name: needed[name] for name in kind.model_fields if name in needed}
    error = refused(kind, **values, **{field: _Talkative()})

    assert field in str(error)
    assert CANARY not in "".join(format_exception(error))
