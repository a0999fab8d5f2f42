"""Confidence is compared with outcomes: exactly, by group, and not from a handful of decisions."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql
from support.models import statements_of

from agentobs import RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.reliability import (
    Calibration,
    GroupCalibration,
    calibration,
    select_calibration,
)
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

# It ships no types.
stats: Any = import_module("scipy.stats")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)

Decisions = list[dict[str, Any]]


def decision(
    confidence: float | None, success: bool | None = None, quality: float | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "metric_type": "routing_decision",
        "measured_at": NOON,
        "selected_agent": "agent-a",
        "selection_strategy": None,
        "confidence_score": _decimal(confidence),
        "selection_validated": True,
        "actual_success": success,
        "actual_quality_score": _decimal(quality),
    } | more


def _decimal(number: float | None) -> Decimal | None:
    return None if number is None else Decimal(str(number))


async def store(session: AsyncSession, rows: Decisions) -> None:
    if rows:
        await session.execute(insert(RouterPerformanceMetric), rows)


async def test_the_bins_tell_what_confidence_was_worth(session: AsyncSession) -> None:
    low = [decision(0.15, n < 5, 0.3) for n in range(10)]
    high = [decision(0.95, n < 18) for n in range(20)]
    await store(session, low + high)

    found = (await calibration(session, WINDOW)).overall

    assert (found.count, found.success_count, found.quality_count) == (30, 30, 10)
    assert found.has_enough_data
    assert [each.count for each in found.bins] == [0, 10, 0, 0, 0, 0, 0, 0, 0, 20]
    assert found.expected_calibration_error == pytest.approx((10 * 0.35 + 20 * 0.05) / 30)
    squares = 5 * 0.85**2 + 5 * 0.15**2 + 18 * 0.05**2 + 2 * 0.95**2
    assert found.brier_score == pytest.approx(squares / 30)
    second = found.bins[1]
    assert (second.low_confidence, second.high_confidence) == (0.1, 0.2)
    assert (second.mean_confidence, second.success_rate) == (0.15, 0.5)
    assert second.mean_quality_score == pytest.approx(0.3)
    # Wilson's interval of 5 in 10.
    assert second.success_rate_interval is not None
    assert second.success_rate_interval.low == pytest.approx(0.2366, abs=1e-4)
    assert second.success_rate_interval.high == pytest.approx(0.7634, abs=1e-4)


async def test_a_bin_without_decisions_has_no_numbers(session: AsyncSession) -> None:
    await store(session, [decision(0.95, True) for _ in range(20)])

    first, *_, last = (await calibration(session, WINDOW)).overall.bins

    assert first.model_dump(exclude={"low_confidence", "high_confidence", "count"}) == {
        "mean_confidence": None,
        "success_rate": None,
        "success_rate_interval": None,
        "mean_quality_score": None,
    }
    assert (last.count, last.mean_quality_score) == (20, None)


async def test_a_bin_holds_its_lower_end_and_the_last_one_holds_1(session: AsyncSession) -> None:
    rows = [decision(each, True) for each in (0, 0.2499, 0.25, 0.5, 0.75, 0.9999, 1)]
    await store(session, rows)

    found = (await calibration(session, WINDOW, bins=4, minimum=5)).overall

    assert [each.count for each in found.bins] == [2, 1, 1, 3]


async def test_too_few_decisions_are_an_answer_without_numbers(session: AsyncSession) -> None:
    await store(session, [decision(0.9, True, 0.5) for _ in range(19)])

    found = (await calibration(session, WINDOW)).overall

    assert (found.count, found.has_enough_data) == (19, False)
    assert (found.expected_calibration_error, found.brier_score) == (None, None)
    assert (found.mean_prediction_error, found.prediction_error_interval) == (None, None)
    assert (found.verdict, len(found.bins)) == (None, 0)
    assert (await calibration(session, WINDOW, minimum=19)).overall.has_enough_data


async def test_no_decision_at_all_is_not_enough(session: AsyncSession) -> None:
    found = await calibration(session, WINDOW, by="agent")

    assert (found.overall.count, found.overall.has_enough_data, len(found.groups)) == (0, False, 0)


async def test_a_decision_without_its_success_counts_by_quality_alone(
    session: AsyncSession,
) -> None:
    await store(session, [decision(0.9, None, 0.5) for _ in range(20)])

    found = (await calibration(session, WINDOW)).overall
    judged = (await calibration(session, WINDOW, success_from_quality=0.5)).overall
    failed = (await calibration(session, WINDOW, success_from_quality=0.5001)).overall

    assert (found.success_count, found.brier_score, len(found.bins)) == (0, None, 0)
    assert found.has_enough_data
    assert found.mean_prediction_error == pytest.approx(0.4)
    assert (judged.success_count, failed.success_count) == (20, 20)
    assert judged.brier_score == pytest.approx(0.01)
    assert failed.brier_score == pytest.approx(0.81)


async def test_a_known_success_is_not_overruled_by_quality(session: AsyncSession) -> None:
    await store(session, [decision(0.9, False, 1) for _ in range(20)])

    found = (await calibration(session, WINDOW, success_from_quality=0.5)).overall

    assert found.brier_score == pytest.approx(0.81)


async def test_only_validated_decisions_of_the_window_with_a_confidence_count(
    session: AsyncSession,
) -> None:
    await store(
        session,
        [
            decision(0.9, True),
            decision(None, True),
            decision(0.9, True, selection_validated=False),
            decision(0.9, True, selection_validated=None),
            decision(0.9, True, measured_at=NOON - timedelta(milliseconds=1)),
            decision(0.9, True, measured_at=NOON + HOUR),
        ],
    )

    assert (await calibration(session, WINDOW)).overall.count == 1


async def test_agents_whose_quality_is_surely_another_are_named(session: AsyncSession) -> None:
    def of(agent: str | None, confidence: float, count: int = 20) -> Decisions:
        return [
            decision(confidence, None, 0.5 + n % 2 / 10, selected_agent=agent) for n in range(count)
        ]

    await store(
        session,
        [
            *of("boaster", 0.9, 22),
            *of("modest", 0.3, 21),
            *of("sound", 0.55),
            *of(None, 0.8),
            *of("new", 1, 19),
        ],
    )

    found = await calibration(session, WINDOW, by="agent")

    assert [each.group for each in found.groups] == ["boaster", "modest", "sound", None, "new"]
    assert (found.overconfident, found.underconfident) == (("boaster", None), ("modest",))
    verdicts = [each.verdict for each in found.groups]
    assert verdicts == ["overconfident", "underconfident", "undecided", "overconfident", None]
    assert found.overall.count == 102


async def test_a_calibration_becomes_a_table_of_another_library(session: AsyncSession) -> None:
    await store(session, [decision(0.9, True, 0.5) for _ in range(20)])
    found = await calibration(session, WINDOW, by="agent")

    (row,) = found.groups.to("arrow").to_pylist()

    assert (row["group"], row["verdict"]) == ("agent-a", "overconfident")
    assert row["prediction_error_interval"].keys() == {"low", "high"}
    assert len(row["bins"]) == 10
    assert found.to("arrow").num_rows == 1


async def test_groups_may_be_strategies_of_any_name(session: AsyncSession) -> None:
    names = ["fuzzy", None, "", "'; DROP", "üñ"]
    await store(
        session, [decision(0.5, True, selection_strategy=name) for name in names for _ in range(5)]
    )

    found = await calibration(session, WINDOW, "strategy", minimum=5)

    assert {each.group for each in found.groups} == set(names)


async def test_the_question_is_one_statement_whatever_the_groups(session: AsyncSession) -> None:
    rows = [decision(n / 100, True, 0.5, selected_agent=f"agent-{n}") for n in range(100)]
    await store(session, rows)

    with statements_of(session) as sent:
        found = await calibration(session, WINDOW, by="agent")

    assert sent == ["SELECT"]
    assert len(found.groups) == 100


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bins": 0}, "bins"),
        ({"bins": 101}, "bins"),
        ({"by": "domain"}, "by"),
        ({"minimum": 4}, "minimum"),
        ({"success_from_quality": 1.1}, "success_from_quality"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    session: AsyncSession, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{field} must"):
        await calibration(session, WINDOW, **options)


def test_the_statement_touches_no_database_and_binds_what_it_is_given() -> None:
    built = select_calibration(WINDOW, by="agent", success_from_quality=0.7)
    compiled = built.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]

    assert Decimal("0.7") in compiled.params.values()
    assert "0.7" not in str(compiled)


_scores = st.none() | st.integers(0, 10_000).map(lambda n: n / 10_000)
_decisions = st.lists(
    st.builds(
        decision,
        _scores,
        st.none() | st.booleans(),
        _scores,
        selected_agent=st.sampled_from(["a", "b", None]),
        selection_validated=st.sampled_from([True, True, True, False, None]),
    ),
    max_size=60,
)


async def test_random_decisions_are_told_as_plain_python_tells_them(session: AsyncSession) -> None:
    sets: list[tuple[Decisions, int]] = []

    @settings(max_examples=40, deadline=None, database=None)
    @given(_decisions, st.integers(1, 12))
    def collect(rows: Decisions, bins: int) -> None:
        sets.append((rows, bins))

    collect()
    for number, (rows, bins) in enumerate(sets):
        window = Window(NOON + number * HOUR, NOON + (number + 1) * HOUR)
        await store(session, [row | {"measured_at": window.since} for row in rows])
        found = await calibration(session, window, "agent", bins, minimum=5)
        assert_told(found, rows, bins)


def assert_told(found: Calibration, rows: Decisions, bins: int) -> None:
    known = [r for r in rows if r["selection_validated"] and r["confidence_score"] is not None]
    groups = defaultdict(list)
    for row in known:
        groups[row["selected_agent"]].append(row)
    assert {each.group for each in found.groups} == set(groups)
    assert_group(found.overall, known, bins)
    for each in found.groups:
        assert_group(each, groups[each.group], bins)


def assert_group(found: GroupCalibration, rows: Decisions, bins: int) -> None:
    judged = [
        (float(r["confidence_score"]), float(r["actual_success"]))
        for r in rows
        if r["actual_success"] is not None
    ]
    errors = [
        float(r["confidence_score"] - r["actual_quality_score"])
        for r in rows
        if r["actual_quality_score"] is not None
    ]
    assert found.count == len(rows)
    assert (found.success_count, found.quality_count) == (len(judged), len(errors))
    if len(judged) < 5:
        assert (found.brier_score, found.expected_calibration_error) == (None, None)
    else:
        assert found.brier_score == pytest.approx(fmean((c - s) ** 2 for c, s in judged))
        assert found.expected_calibration_error == pytest.approx(calibration_error(judged, bins))
        assert_intervals(found, judged, bins)
    if len(errors) < 5:
        assert (found.mean_prediction_error, found.verdict) == (None, None)
    else:
        assert_error(found, errors)


def place_of(confidence: float, bins: int) -> int:
    # In ten-thousandths, for floats don't know the edges.
    return min(round(confidence * 10_000) * bins // 10_000, bins - 1)


def binned(judged: Sequence[tuple[float, float]], bins: int) -> dict[int, list[Any]]:
    held = defaultdict(list)
    for confidence, success in judged:
        held[place_of(confidence, bins)].append((confidence, success))
    return held


def calibration_error(judged: Sequence[tuple[float, float]], bins: int) -> float:
    mean: Callable[[Any], float] = fmean
    gaps = [
        len(rows) * abs(mean(c for c, _ in rows) - mean(s for _, s in rows))
        for rows in binned(judged, bins).values()
    ]
    return sum(gaps) / len(judged)


def assert_intervals(
    found: GroupCalibration, judged: Sequence[tuple[float, float]], bins: int
) -> None:
    held = binned(judged, bins)
    assert len(found.bins) == bins
    for number, each in enumerate(found.bins):
        rows = held.get(number, [])
        assert each.count == len(rows)
        if rows:
            test = stats.binomtest(int(sum(s for _, s in rows)), len(rows))
            told = test.proportion_ci(method="wilson")
            assert each.success_rate_interval is not None
            assert each.success_rate_interval.low == pytest.approx(told.low, abs=1e-9)
            assert each.success_rate_interval.high == pytest.approx(told.high, abs=1e-9)


def assert_error(found: GroupCalibration, errors: list[float]) -> None:
    mean = fmean(errors)
    margin = stats.t.ppf(0.975, len(errors) - 1) * stdev(errors) / len(errors) ** 0.5
    assert found.prediction_error_interval is not None
    assert found.mean_prediction_error == pytest.approx(mean, abs=1e-9)
    assert found.prediction_error_interval.low == pytest.approx(mean - margin, rel=1e-3, abs=1e-3)
    assert found.prediction_error_interval.high == pytest.approx(mean + margin, rel=1e-3, abs=1e-3)
