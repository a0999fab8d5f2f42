"""Weights are fitted to outcomes, and better only where held-out decisions surely say so."""

from __future__ import annotations

import itertools
import random
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import fmean
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from support.models import statements_of

from agentobs import RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.weights import ROUTER_WEIGHTS, Weights, suggest_weights
from agentobs.errors import InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
NAMES = ("trigger", "context", "capability", "historical")

Parts = tuple[Decimal | None, ...]


def score(number: float) -> Decimal:
    return Decimal(round(number * 10_000)) / 10_000


def decision(parts: Sequence[Decimal | None], success: bool | None, **more: Any) -> dict[str, Any]:
    return {
        "metric_type": "routing_decision",
        "measured_at": NOON,
        "correlation_id": None,
        "selection_validated": True,
        "actual_success": success,
        "actual_quality_score": None,
        **{f"{name}_confidence": part for name, part in zip(NAMES, parts, strict=True)},
    } | more


def decisions_by(
    weights: Sequence[float], count: int, seed: int, **more: Any
) -> list[dict[str, Any]]:
    """Return decisions that succeed as often as these weights say."""
    chance = random.Random(seed)  # noqa: S311 (rows, not secrets)
    rows = []
    for _ in range(count):
        parts = [score(chance.random()) for _ in NAMES]
        likely = sum(weight * float(part) for weight, part in zip(weights, parts, strict=True))
        rows.append(decision(parts, chance.random() < likely, **more))
    return rows


async def store(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    if rows:
        await session.execute(insert(RouterPerformanceMetric), rows)


@pytest.mark.parametrize("true", [(0.1, 0.1, 0.2, 0.6), (0.0, 0.0, 1.0, 0.0), (0.0, 0.5, 0.0, 0.5)])
async def test_the_weights_behind_the_outcomes_are_found(
    session: AsyncSession, true: tuple[float, ...]
) -> None:
    await store(session, decisions_by(true, 3000, seed=1))

    found = await suggest_weights(session, WINDOW)

    assert found.suggested is not None
    assert found.suggested.values == pytest.approx(true, abs=0.08)
    assert found.gain is not None
    assert found.gain_interval is not None
    assert found.gain > 0.01
    assert found.gain_interval.low > 0
    assert found.is_better
    (row,) = found.to("arrow").to_pylist()
    assert row["suggested"] == found.suggested.model_dump()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_gain_is_claimed_over_weights_that_are_right(
    session: AsyncSession, seed: int
) -> None:
    await store(session, decisions_by(ROUTER_WEIGHTS.values, 2000, seed))

    found = await suggest_weights(session, WINDOW)

    assert found.suggested is not None
    assert found.suggested.values == pytest.approx(ROUTER_WEIGHTS.values, abs=0.12)
    assert found.gain_interval is not None
    assert found.gain_interval.low <= 0
    assert not found.is_better


async def test_the_gain_is_told_over_the_weights_in_use(session: AsyncSession) -> None:
    await store(session, decisions_by((0.1, 0.1, 0.2, 0.6), 2000, seed=4))
    used = Weights(trigger=0.1, context=0.1, capability=0.2, historical=0.6)

    found = await suggest_weights(session, WINDOW, current=used)

    assert found.current == used
    assert not found.is_better


async def test_decisions_that_are_all_alike_leave_the_weights(session: AsyncSession) -> None:
    await store(session, [decision([Decimal("0.5")] * 4, n % 4 > 0) for n in range(200)])

    found = await suggest_weights(session, WINDOW)

    assert found.suggested is not None
    assert found.suggested.values == pytest.approx(ROUTER_WEIGHTS.values)
    assert found.gain == pytest.approx(0, abs=1e-6)
    assert not found.is_better


async def test_too_few_decisions_are_an_answer_without_numbers(session: AsyncSession) -> None:
    rows = decisions_by((0, 0, 0, 1), 200, seed=5)
    await store(session, [*rows[1:], rows[0] | {"context_confidence": None}])

    found = await suggest_weights(session, WINDOW)

    assert (found.count, found.complete_count, found.workflow_count) == (200, 199, 200)
    assert (found.has_enough_data, found.suggested, found.gain) == (False, None, None)
    assert (found.gain_interval, found.is_better) == (None, False)
    assert (await suggest_weights(session, WINDOW, minimum=199)).has_enough_data


async def test_no_decision_at_all_is_not_enough(session: AsyncSession) -> None:
    found = await suggest_weights(session, WINDOW)

    assert (found.count, found.complete_count, found.workflow_count) == (0, 0, 0)
    assert not found.has_enough_data


async def test_decisions_of_few_workflows_are_not_enough(session: AsyncSession) -> None:
    rows = decisions_by((0, 0, 0, 1), 300, seed=6)
    few = [row | {"correlation_id": UUID(int=n % 9)} for n, row in enumerate(rows)]
    await store(session, few)

    found = await suggest_weights(session, WINDOW)

    assert (found.complete_count, found.workflow_count) == (300, 9)
    assert not found.has_enough_data
    assert (await suggest_weights(session, WINDOW, folds=9)).has_enough_data


async def test_only_decisions_that_say_something_are_read(session: AsyncSession) -> None:
    parts = [Decimal("0.5")] * 4
    await store(
        session,
        [
            decision(parts, True),
            decision([None, *parts[1:]], True),
            decision([None] * 4, True),
            decision(parts, None),
            decision(parts, None, actual_quality_score=Decimal("0.9")),
            decision(parts, True, selection_validated=False),
            decision(parts, True, measured_at=NOON - HOUR),
            decision(parts, True, measured_at=NOON + HOUR),
        ],
    )

    found = await suggest_weights(session, WINDOW)
    by_quality = await suggest_weights(session, WINDOW, success_from_quality=0.8)

    assert (found.count, found.complete_count) == (2, 1)
    assert (by_quality.count, by_quality.complete_count) == (3, 2)


async def test_the_newest_decisions_are_read_up_to_the_limit(session: AsyncSession) -> None:
    old = decisions_by((1, 0, 0, 0), 300, seed=7)
    new = decisions_by((0, 0, 0, 1), 300, seed=8, measured_at=NOON + HOUR / 2)
    await store(session, new + old)

    found = await suggest_weights(session, WINDOW, limit=300)

    assert found.count == 300
    assert found.suggested is not None
    assert found.suggested.historical > 0.8


async def test_the_answer_is_the_same_each_time_and_one_statement(session: AsyncSession) -> None:
    await store(session, decisions_by((0.3, 0.3, 0.3, 0.1), 400, seed=9))
    state = random.getstate()

    with statements_of(session) as sent:
        first = await suggest_weights(session, WINDOW)
    second = await suggest_weights(session, WINDOW)

    assert sent == ["SELECT"]
    assert first == second
    assert random.getstate() == state


async def test_without_scipy_the_extra_is_named(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_WithoutScipy(), *sys.meta_path])

    with statements_of(session) as sent, pytest.raises(MissingExtraError, match=r"\[weights\]"):
        await suggest_weights(session, WINDOW)
    assert sent == []


class _WithoutScipy:
    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError(f"No module named {name!r}", name="scipy")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"minimum": 19}, "minimum"),
        ({"folds": 4}, "folds"),
        ({"limit": 0}, "limit"),
        ({"current": Weights(trigger=1, context=1, capability=0, historical=0)}, "current"),
        ({"current": Weights(trigger=2, context=-1, capability=0, historical=0)}, "current"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    session: AsyncSession, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{field} must"):
        await suggest_weights(session, WINDOW, **options)


_part = st.integers(0, 10_000).map(lambda n: Decimal(n) / 10_000)
_workflow = st.none() | st.integers(0, 40).map(lambda n: UUID(int=n))


def _decisions(part: st.SearchStrategy[Any], least: int) -> st.SearchStrategy[list[Any]]:
    one = st.builds(decision, st.tuples(*[part] * 4), st.booleans(), correlation_id=_workflow)
    return st.lists(one, min_size=least, max_size=40)


async def test_random_decisions_get_the_best_of_all_weights(session: AsyncSession) -> None:
    sets: list[list[dict[str, Any]]] = []

    @settings(max_examples=20, deadline=None, database=None)
    @given(_decisions(_part, 20), _decisions(st.none() | _part, 0))
    def collect(complete: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        sets.append(complete + others)

    collect()
    told = 0
    for number, rows in enumerate(sets):
        window = Window(NOON + number * HOUR, NOON + (number + 1) * HOUR)
        at = window.since
        await store(session, [row | {"measured_at": at} for row in rows])
        found = await suggest_weights(session, window, minimum=20, folds=5)
        if found.suggested is not None:
            told += 1
            assert min(found.suggested.values) >= 0
            assert sum(found.suggested.values) == pytest.approx(1)
            assert brier_score(rows, found.suggested.values) <= best_of_grid(rows) + 5e-6
    assert told


def brier_score(rows: list[dict[str, Any]], weights: Sequence[float]) -> float:
    return fmean(
        (
            sum(
                weight * float(row[f"{name}_confidence"] or 0)
                for name, weight in zip(NAMES, weights, strict=True)
            )
            - row["actual_success"]
        )
        ** 2
        for row in rows
        if any(row[f"{name}_confidence"] is not None for name in NAMES)
    )


def best_of_grid(rows: list[dict[str, Any]]) -> float:
    steps = [n / 10 for n in range(11)]
    corners = [
        (*first, 1 - sum(first))
        for first in itertools.product(steps, repeat=3)
        if sum(first) <= 1 + 1e-12
    ]
    return min(brier_score(rows, weights) for weights in corners)


async def test_a_workflow_is_foretold_without_its_own_decisions(session: AsyncSession) -> None:
    # Each workflow repeats one decision: weights that had seen it would look better than they are.
    chance = random.Random(10)  # noqa: S311 (rows, not secrets)
    rows = []
    for workflow in range(20):
        parts, success = [score(chance.random()) for _ in NAMES], chance.random() < 0.5
        rows += [decision(parts, success, correlation_id=UUID(int=workflow)) for _ in range(20)]
    await store(session, rows)

    found = await suggest_weights(session, WINDOW, folds=5)

    by_fold = [[row for row in rows if (row["correlation_id"].int + 1) % 5 == f] for f in range(5)]
    current = fmean(brier_score(fold, ROUTER_WEIGHTS.values) for fold in by_fold)
    assert found.current_brier_score == pytest.approx(current)
    assert found.suggested is not None
    assert found.suggested_brier_score is not None
    assert found.suggested_brier_score > brier_score(rows, found.suggested.values)
    assert not found.is_better
