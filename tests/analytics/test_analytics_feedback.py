"""Feedback is told by type, against all decisions, with the newest corrections."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentobs import FeedbackType, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.user_feedback import feedback
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))


def decision(
    minute: float, kind: str | None = None, *, is_given: bool | None = None, **values: Any
) -> RouterPerformanceMetric:
    return RouterPerformanceMetric(
        metric_type=values.pop("metric_type", "routing_decision"),
        feedback_provided=kind is not None if is_given is None else is_given,
        feedback_type=kind,
        measured_at=NOON + timedelta(minutes=minute),
        **values,
    )


async def add(session: AsyncSession, decisions: Sequence[RouterPerformanceMetric]) -> None:
    session.add_all(decisions)
    await session.flush()


async def test_feedback_comes_by_type_with_its_share_and_means(session: AsyncSession) -> None:
    await add(
        session,
        [
            decision(1, "positive", confidence_score=0.75, actual_quality_score=1),
            decision(2, "positive", confidence_score=0.25),
            decision(3, "negative"),
            decision(4, None, is_given=True, actual_quality_score=0.5),
            *(decision(minute, None) for minute in range(5, 9)),
        ],
    )
    found = await feedback(session, WINDOW)

    assert (found.decisions, found.with_feedback, found.feedback_rate) == (8, 4, 0.5)
    assert [tuple(each.model_dump().values()) for each in found.types] == [
        ("positive", 2, 0.5, 0.5, 1.0),
        ("negative", 1, 0.25, None, None),
        (None, 1, 0.25, None, 0.5),
    ]


async def test_a_type_of_what_was_not_provided_is_no_feedback(session: AsyncSession) -> None:
    await add(session, [decision(1, "correction", is_given=False)])
    found = await feedback(session, WINDOW)

    assert (found.decisions, found.with_feedback, found.feedback_rate) == (1, 0, 0.0)
    assert (len(found.types), len(found.corrections)) == (0, 0)


async def test_without_decisions_there_is_no_rate(session: AsyncSession) -> None:
    await add(session, [decision(-1, "positive"), decision(60, "correction")])
    found = await feedback(session, WINDOW)

    assert (found.decisions, found.with_feedback, found.feedback_rate) == (0, 0, None)
    assert (len(found.types), len(found.corrections)) == (0, 0)


async def test_corrections_come_newest_first_and_only_so_many(session: AsyncSession) -> None:
    given = [decision(m, FeedbackType.CORRECTION, selected_agent=f"a{m}") for m in (2, 9, 5)]
    await add(session, [*given, decision(10, "negative")])
    found = await feedback(session, WINDOW, limit=2)

    assert [each.selected_agent for each in found.corrections] == ["a9", "a5"]
    assert found.with_feedback == 4
    with pytest.raises(InvalidValueError, match="limit must be 1 or more"):
        await feedback(session, WINDOW, limit=0)


async def test_what_people_wrote_is_told_on_request_and_never_shown(session: AsyncSession) -> None:
    wrote = {"right": "debugger", "of": "user 4711", "n": 10**30}
    await add(session, [decision(1, "correction", feedback_details=wrote)])
    (quiet,) = (await feedback(session, WINDOW)).corrections
    (loud,) = (await feedback(session, WINDOW, with_details=True)).corrections

    assert quiet.details is None
    assert loud.details == wrote
    assert "4711" not in repr(loud)


async def test_a_host_may_name_the_metrics_it_means(session: AsyncSession) -> None:
    look_up = decision(1, "correction", metric_type="cache_miss")
    await add(session, [look_up, decision(2, "positive"), decision(3)])
    found = await feedback(session, WINDOW, metric_types=["routing_decision"])

    assert (found.decisions, found.with_feedback, len(found.corrections)) == (2, 1, 0)


async def test_feedback_is_a_table_of_arrow(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")
    await add(session, [decision(1, "correction", feedback_details={"a": 1})])
    found = await feedback(session, WINDOW, with_details=True)

    assert found.types.to("arrow").column("count").to_pylist() == [1]
    assert found.corrections.to("arrow").column("details_json").to_pylist() == ['{"a": 1}']


SCORES = st.none() | st.decimals(0, 1, places=4)
DECISIONS = st.lists(
    st.builds(
        decision,
        st.integers(-5, 65),
        st.sampled_from([None, "positive", "correction", "other"]),
        is_given=st.sampled_from([True, True, False, None]),
        confidence_score=SCORES,
        actual_quality_score=SCORES,
    ),
    max_size=16,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(decisions=DECISIONS)
async def test_any_feedback_is_what_plain_python_makes_of_it(
    session: AsyncSession, decisions: list[RouterPerformanceMetric]
) -> None:
    async with session.begin_nested() as savepoint:
        await add(session, decisions)
        held = [d for d in decisions if WINDOW.since <= d.measured_at < WINDOW.until]
        given = [d for d in held if d.feedback_provided]
        expected = {kind: numbers_of(kind, given) for kind in {d.feedback_type for d in given}}
        corrections = [d.id for d in given if d.feedback_type == "correction"]
        found = await feedback(session, WINDOW)
        await savepoint.rollback()

    assert (found.decisions, found.with_feedback) == (len(held), len(given))
    assert found.feedback_rate == (len(given) / len(held) if held else None)
    told = {each.feedback_type: tuple(each.model_dump().values())[1:] for each in found.types}
    assert told == expected
    assert [each.id for each in found.corrections] == sorted(corrections, reverse=True)


def numbers_of(kind: str | None, given: Sequence[RouterPerformanceMetric]) -> tuple[Any, ...]:
    same = [d for d in given if d.feedback_type == kind]
    counts = Counter(d.feedback_type for d in given)
    return (
        counts[kind],
        pytest.approx(counts[kind] / len(given)),
        mean([d.confidence_score for d in same]),
        mean([d.actual_quality_score for d in same]),
    )


def mean(scores: Sequence[Decimal | None]) -> Any:
    known = [float(score) for score in scores if score is not None]
    return pytest.approx(fmean(known)) if known else None
