"""What the four components add to the router's confidence, and which decide nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from agentobs import MetricType, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.components import confidence
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.components import ComponentConfidence

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)
WEIGHTS = {"trigger": 0.4, "context": 0.3, "capability": 0.2, "historical": 0.1}

SCORES = st.none() | st.sampled_from([0, 1]) | st.decimals(0, 1, places=4)
DECISIONS = st.lists(
    st.fixed_dictionaries(
        {"selected_agent": st.sampled_from([None, "a", "B", ""]), "confidence_score": SCORES}
        | {f"{name}_confidence": SCORES for name in WEIGHTS}
    ),
    max_size=30,
)
WINDOWS = count(1)


async def add_decisions(session: AsyncSession, *decisions: dict[str, Any]) -> None:
    rows = [
        {"metric_type": MetricType.ROUTING_DECISION, "measured_at": NOON} | decision
        for decision in decisions
    ]
    if rows:
        await session.execute(insert(RouterPerformanceMetric), rows)


def scored(times: int = 1, agent: str | None = "a", **components: float) -> list[dict[str, Any]]:
    """Make decisions with these components, whose score is their weighted sum."""
    score = sum(WEIGHTS[name] * value for name, value in components.items())
    values = {f"{name}_confidence": value for name, value in components.items()}
    return [{"selected_agent": agent, "confidence_score": round(score, 4), **values}] * times


async def components_of(
    session: AsyncSession, window: Window = WINDOW, min_rows: int = 20
) -> dict[str, ComponentConfidence]:
    found = await confidence(session, window, min_rows=min_rows)
    return {row.component: row for row in found}


def told(
    agent: str | None, component: str, rows: Sequence[dict[str, Any]], min_rows: int
) -> dict[str, Any]:
    name = f"{component}_confidence"
    values = [float(row[name]) for row in rows if row[name] is not None]
    with_score = [row for row in rows if row["confidence_score"] is not None]
    added = [float(row[name]) for row in with_score if row[name] is not None]
    total = sum(float(row["confidence_score"]) for row in with_score)
    is_enough, highest = len(values) >= min_rows, max(values.count(0), values.count(1))
    return {
        "agent": agent,
        "component": component,
        "weight": WEIGHTS[component],
        "rows": len(values),
        "mean": fmean(values) if values else None,
        "standard_deviation": stdev(values) if len(values) > 1 else None,
        "score_share": WEIGHTS[component] * sum(added) / total if added and total else None,
        "is_constant": len(set(values)) == 1 if is_enough else None,
        "is_saturated": 100 * highest >= 95 * len(values) if is_enough else None,
    }


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=DECISIONS)
async def test_components_have_the_numbers_of_their_rows(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> None:
    begin = NOON + HOUR * next(WINDOWS)
    await add_decisions(session, *(row | {"measured_at": begin} for row in rows))

    found = await confidence(session, Window(begin, begin + HOUR), min_rows=3)

    scored = [row for row in rows if any(row[f"{name}_confidence"] is not None for name in WEIGHTS)]
    names = {row["selected_agent"] for row in scored}
    wanted = [
        told(name, component, [row for row in scored if row["selected_agent"] == name], 3)
        for name in sorted(names, key=lambda name: (name is None, name or ""))
        for component in WEIGHTS
    ]
    assert len(found) == len(wanted)
    for row, expected in zip(found, wanted, strict=True):
        assert row.model_dump() == pytest.approx(expected)


async def test_the_shares_of_a_weighted_sum_are_1_together(session: AsyncSession) -> None:
    await add_decisions(
        session,
        *scored(trigger=1, context=0.5, capability=0.25, historical=0),
        *scored(trigger=0.5, context=0.5),
        *scored(capability=1),
    )

    found = await components_of(session)

    shares = [row.score_share for row in found.values()]
    assert sum(share or 0 for share in shares) == pytest.approx(1)
    assert found["trigger"].score_share == pytest.approx(0.4 * 1.5 / (0.6 + 0.35 + 0.2))


async def test_a_share_is_weight_times_mean_by_the_mean_score_where_all_is_known(
    session: AsyncSession,
) -> None:
    full: dict[str, Any] = {"context": 0.5, "capability": 0.25, "historical": 1}
    await add_decisions(session, *scored(trigger=1, **full), *scored(trigger=0.5, **full))

    found = await components_of(session)

    score = 0.4 * 0.75 + 0.3 * 0.5 + 0.2 * 0.25 + 0.1
    for component in found.values():
        assert component.mean is not None
        assert component.score_share == pytest.approx(component.weight * component.mean / score)


async def test_scores_without_components_are_in_no_share(session: AsyncSession) -> None:
    await add_decisions(session, *scored(trigger=1), {"selected_agent": "a", "confidence_score": 1})

    found = await components_of(session)

    assert found["trigger"].score_share == pytest.approx(1)
    assert (found["context"].rows, found["context"].mean) == (0, None)
    assert (found["context"].score_share, found["context"].is_constant) == (None, None)


async def test_a_score_of_0_has_no_shares(session: AsyncSession) -> None:
    await add_decisions(session, *scored(trigger=0))
    assert (await components_of(session))["trigger"].score_share is None


@pytest.mark.parametrize(
    ("rows", "is_constant"), [(19, None), (20, True), (21, True)], ids=["19", "20", "21"]
)
async def test_a_component_is_constant_from_20_equal_values_on(
    session: AsyncSession, rows: int, is_constant: bool | None
) -> None:
    await add_decisions(session, *scored(rows, trigger=0.3333))

    trigger = (await components_of(session))["trigger"]

    assert (trigger.is_constant, trigger.standard_deviation) == (is_constant, 0)
    assert not trigger.is_saturated


@pytest.mark.parametrize(
    ("at_0", "at_1", "between", "is_saturated"),
    [
        (19, 0, 1, True),
        (0, 19, 1, True),
        (18, 0, 2, False),
        (10, 10, 0, False),
        (1, 19, 0, True),
        (0, 18, 0, None),
    ],
)
async def test_a_component_is_saturated_where_nearly_all_values_are_at_one_end(
    session: AsyncSession, at_0: int, at_1: int, between: int, is_saturated: bool | None
) -> None:
    await add_decisions(
        session,
        *scored(at_0, context=0),
        *scored(at_1, context=1),
        *scored(between, context=0.9999),
    )

    context = (await components_of(session))["context"]

    assert context.is_saturated is is_saturated
    assert context.is_constant is (None if is_saturated is None else False)


async def test_decisions_for_nobody_come_last(session: AsyncSession) -> None:
    await add_decisions(
        session,
        *scored(agent=None, trigger=1),
        *scored(agent="b", trigger=1),
        *scored(agent="B", trigger=1),
        {"selected_agent": "c"},
    )

    found = await confidence(session, WINDOW)

    assert [row.agent for row in found] == ["B"] * 4 + ["b"] * 4 + [None] * 4
    assert [row.component for row in found[:4]] == list(WEIGHTS)


async def test_a_window_without_decisions_has_no_components(session: AsyncSession) -> None:
    await add_decisions(session, scored(trigger=1)[0] | {"measured_at": NOON + HOUR})
    assert len(await confidence(session, WINDOW)) == 0


async def test_no_rows_at_all_are_too_few_to_tell_from(session: AsyncSession) -> None:
    with pytest.raises(InvalidValueError, match="min_rows must be 1"):
        await confidence(session, WINDOW, min_rows=0)
