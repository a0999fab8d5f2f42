from __future__ import annotations

import traceback
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import func, literal_column, text
from support.models import CANARY, new_definition, new_event, new_metric

from agentobs.errors import AgentobsError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

KEY = "0190163d-8694-739b-aea5-966c26f8ad90"
MAKERS: dict[str, Callable[..., object]] = {
    "agent_definitions": new_definition,
    "agent_transformation_events": new_event,
    "router_performance_metrics": new_metric,
}
SCORES = [
    "agent_definitions.success_rate",
    "agent_definitions.quality_score",
    "agent_transformation_events.routing_confidence",
    "agent_transformation_events.quality_score",
    "router_performance_metrics.confidence_score",
    "router_performance_metrics.trigger_confidence",
    "router_performance_metrics.context_confidence",
    "router_performance_metrics.capability_confidence",
    "router_performance_metrics.historical_confidence",
    "router_performance_metrics.actual_quality_score",
]


class Odd(Enum):
    NOT_A_NUMBER = float("nan")


def make(column: str, value: object) -> object:
    table, name = column.split(".")
    return MAKERS[table](**{name: value})


def refusal_of(column: str, value: object) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        make(column, value)
    assert caught.value.column == column
    return caught.value


@pytest.mark.parametrize("column", SCORES)
@pytest.mark.parametrize("value", [1.2, -0.1, 1.00005, float("nan"), float("inf"), 10**30])
def test_a_score_outside_zero_to_one_is_refused_with_column_and_bound(
    column: str, value: float
) -> None:
    assert str(refusal_of(column, value)) == f"{column} must be within 0 and 1, got {value}"


@pytest.mark.parametrize("value", [True, "0.8", 1j, [0.8]])
def test_a_score_that_is_no_number_is_refused_by_its_type(value: object) -> None:
    error = refusal_of("router_performance_metrics.confidence_score", value)

    assert error.rule == f"must be a number, got {type(value).__name__}"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0.83, "0.8300"),
        (1, "1.0000"),
        (0, "0.0000"),
        (Decimal("0.12345678"), "0.1235"),
        (0.1 + 0.2, "0.3000"),
        (1.0000000000000002, "1.0000"),
    ],
)
def test_a_score_becomes_a_decimal_of_four_places(given: float | Decimal, kept: str) -> None:
    # What a caller gives is wider than what the attribute is read as.
    values: dict[str, Any] = {"routing_confidence": given}

    assert str(new_event(**values).routing_confidence) == kept


@pytest.mark.parametrize("given", ["0.00005", "0.00015", "0.12345", "0.99995", "1.00004"])
async def test_a_score_is_rounded_as_postgresql_rounds_it(
    session: AsyncSession, given: str
) -> None:
    stored = await session.scalar(text(f"SELECT {given}::numeric(5,4)"))

    assert new_event(quality_score=Decimal(given)).quality_score == stored
    assert new_event(quality_score=float(given)).quality_score == stored


@pytest.mark.parametrize("value", [-1, -0.37, 0, 1])
async def test_a_prediction_error_may_be_negative(session: AsyncSession, value: float) -> None:
    metric = new_metric(prediction_error=value)
    session.add(metric)
    await session.flush()
    await session.refresh(metric)

    assert metric.prediction_error == Decimal(str(value))


@pytest.mark.parametrize("value", [-1.2, 1.2])
def test_a_prediction_error_beyond_one_is_refused(value: float) -> None:
    error = refusal_of("router_performance_metrics.prediction_error", value)

    assert error.rule == f"must be within -1 and 1, got {value}"


@pytest.mark.parametrize("value", [-(2**31), 0, 2**31 - 1])
async def test_an_integer_column_takes_all_of_its_range(session: AsyncSession, value: int) -> None:
    event = new_event(context_size_bytes=value)
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.context_size_bytes == value


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 10**5000], ids=["2³¹", "-2³¹-1", "huge"])
def test_an_integer_beyond_the_column_is_refused_with_its_bounds(value: int) -> None:
    error = refusal_of("router_performance_metrics.total_routing_time_us", value)

    assert error.rule == "must be within -2147483648 and 2147483647"


@pytest.mark.parametrize("value", [1.0, "1", True, Decimal(1)])
def test_an_integer_column_takes_no_other_type(value: object) -> None:
    error = refusal_of("agent_transformation_events.context_size_bytes", value)

    assert error.rule == f"must be an int, got {type(value).__name__}"


@pytest.mark.parametrize("value", [1, 0, "true"])
def test_a_boolean_column_takes_booleans_only(value: object) -> None:
    error = refusal_of("agent_transformation_events.success", value)

    assert error.rule == f"must be a bool, got {type(value).__name__}"


@pytest.mark.parametrize(
    ("column", "length"),
    [
        ("agent_definitions.agent_name", 255),
        ("agent_definitions.agent_version", 50),
        ("agent_definitions.definition_hash", 64),
        ("agent_transformation_events.target_agent", 255),
        ("agent_transformation_events.event_type", 100),
        ("router_performance_metrics.feedback_type", 50),
    ],
)
def test_an_over_long_name_is_refused_with_column_and_bound(column: str, length: int) -> None:
    assert make(column, "n" * length) is not None
    error = refusal_of(column, "n" * (length + 1))

    assert str(error) == f"{column} holds at most {length} characters, got {length + 1}"


async def test_a_name_is_measured_in_characters_like_in_postgresql(session: AsyncSession) -> None:
    event = new_event(target_agent="🦉" * 255)
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.target_agent == "🦉" * 255


@pytest.mark.parametrize("value", [KEY, UUID(KEY)])
def test_a_uuid_may_be_given_as_text(value: object) -> None:
    assert new_event(session_id=value).session_id == UUID(KEY)


@pytest.mark.parametrize("value", ["not-a-uuid", 7, b"0" * 16])
def test_what_is_no_uuid_is_refused(value: object) -> None:
    error = refusal_of("agent_transformation_events.correlation_id", value)

    assert error.rule == "must be a UUID or its text form"


def test_a_naive_datetime_is_refused_with_its_column() -> None:
    naive = datetime(2025, 1, 1)  # noqa: DTZ001 (a naive one is what the test is about)

    error = refusal_of("agent_transformation_events.started_at", naive)

    assert error.rule == "must have a time zone, got a naive datetime: use datetime.now(UTC)"


@pytest.mark.parametrize("value", [date(2025, 1, 1), "2025-01-01T00:00:00Z", 1735689600])
def test_an_instant_that_is_no_datetime_is_refused(value: object) -> None:
    error = refusal_of("router_performance_metrics.measured_at", value)

    assert error.rule == f"must be a datetime, got {type(value).__name__}"


@pytest.mark.parametrize("value", [["a", "b"], ("a", "b")])
async def test_capabilities_take_a_list_or_a_tuple(session: AsyncSession, value: object) -> None:
    definition = new_definition(capabilities=value)
    session.add(definition)
    await session.flush()
    await session.refresh(definition)

    assert definition.capabilities == ["a", "b"]


def test_a_set_of_capabilities_becomes_a_list() -> None:
    assert new_definition(capabilities={"a"}).capabilities == ["a"]


@pytest.mark.parametrize("value", ["review", {"review": 1}, 5])
def test_capabilities_that_are_no_list_are_refused(value: object) -> None:
    error = refusal_of("agent_definitions.capabilities", value)

    assert error.rule == f"must be a list of str, got {type(value).__name__}"


@pytest.mark.parametrize("value", [[1], [None], [["a"]]])
def test_a_capability_that_is_no_text_is_refused(value: list[object]) -> None:
    error = refusal_of("agent_definitions.capabilities", value)

    assert error.rule == f"must be a str, got {type(value[0]).__name__}"


@pytest.mark.parametrize(
    "column",
    [
        "agent_definitions.agent_name",
        "agent_definitions.yaml_config",
        "agent_definitions.is_active",
        "agent_definitions.status",
        "agent_transformation_events.correlation_id",
        "agent_transformation_events.started_at",
        "router_performance_metrics.metric_type",
        "router_performance_metrics.measured_at",
    ],
)
def test_none_in_a_column_that_needs_a_value_is_refused(column: str) -> None:
    assert str(refusal_of(column, None)) == f"{column} must not be None"


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("agent_transformation_events.user_request", f"{CANARY}\x00", "U\\+0000"),
        ("agent_transformation_events.user_request", f"{CANARY}\ud800", "lone surrogates"),
        ("agent_transformation_events.error_message", CANARY.encode(), "must be a str, got bytes"),
        ("agent_transformation_events.context_keys", [CANARY, f"{CANARY}\x00"], "U\\+0000"),
        ("agent_transformation_events.target_agent", CANARY * 50, "at most 255 characters"),
        ("agent_transformation_events.session_id", CANARY, "must be a UUID"),
        ("agent_transformation_events.started_at", CANARY, "must be a datetime, got str"),
        ("agent_transformation_events.success", CANARY, "must be a bool, got str"),
        ("agent_transformation_events.context_size_bytes", CANARY, "must be an int, got str"),
        ("agent_transformation_events.routing_confidence", CANARY, "must be a number, got str"),
        ("agent_transformation_events.context_snapshot", {CANARY: float("nan")}, "no NaN"),
        ("agent_transformation_events.context_snapshot", {CANARY: float("-inf")}, "no NaN"),
        ("agent_transformation_events.context_snapshot", {CANARY: Odd.NOT_A_NUMBER}, "no NaN"),
        ("agent_transformation_events.context_snapshot", {CANARY: {"\x00"}}, "set"),
        ("agent_transformation_events.context_snapshot", {f"{CANARY}\x00": 1}, "U\\+0000"),
        ("agent_definitions.yaml_config", [f"{CANARY}\udfff"], "lone surrogates"),
        ("agent_definitions.parsed_metadata", {CANARY: object()}, "must be JSON: .* object"),
        ("router_performance_metrics.alternative_agents", {(CANARY,): 1}, "must be JSON"),
        ("router_performance_metrics.feedback_details", CANARY.encode(), "must be JSON: .* bytes"),
    ],
)
def test_a_refused_value_is_named_by_its_column_and_quoted_nowhere(
    column: str, value: object, rule: str
) -> None:
    with pytest.raises(InvalidValueError, match=rule) as caught:
        make(column, value)

    assert caught.value.column == column
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_refused_assignment_leaves_the_value_as_it_was() -> None:
    event = new_event(user_request="first")

    with pytest.raises(InvalidValueError):
        event.user_request = "second\x00"
    assert event.user_request == "first"


def test_a_refusal_is_an_error_of_the_package_and_a_value_error() -> None:
    error = refusal_of("agent_definitions.success_rate", 2)

    assert isinstance(error, AgentobsError)
    assert isinstance(error, ValueError)


async def test_an_expression_of_sql_is_the_databases_to_judge(session: AsyncSession) -> None:
    event = new_event(
        routing_confidence=literal_column("0.5 + 0.25"), target_agent=func.lower("AGENT-X")
    )
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.routing_confidence == Decimal("0.75")
    assert event.target_agent == "agent-x"


async def test_an_instant_comes_back_in_utc_whatever_zone_it_was_given_in(
    session: AsyncSession,
) -> None:
    given = datetime.fromisoformat("2025-03-30T03:00:00.123456+02:00")
    event = new_event(started_at=given)
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.started_at == given
    assert event.started_at.tzinfo is UTC
