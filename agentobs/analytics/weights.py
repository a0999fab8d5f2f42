"""Weights of the router's four confidence components, fitted to what came of its decisions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import import_module
from math import isclose
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Numeric, cast, distinct, func, literal, select

from agentobs.analytics.reliability import Interval, mean_interval, success_known
from agentobs.analytics.results import Result, execute
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError, MissingExtraError
from agentobs.models import RouterPerformanceMetric
from agentobs.models.vocabulary import (
    CAPABILITY_WEIGHT,
    CONTEXT_WEIGHT,
    HISTORICAL_WEIGHT,
    TRIGGER_WEIGHT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

MINIMUM_DECISIONS = 200
"""How many decisions with all four components a suggestion is made from, by default."""

MAX_DECISIONS = 100_000
"""How many decisions are read, the newest ones, by default."""

FOLDS = 10

_LEAST_MINIMUM = 20
_LEAST_FOLDS = 5

# Far below what a difference between weights is worth, yet it decides where components say the same
# and many weights are as good.
_RIDGE = 1e-6
# A gain of less is the solver's own error, and would be a certain one where all folds are alike.
_GAIN_PLACES = 9

_Metric = RouterPerformanceMetric
_NAMES = ("trigger", "context", "capability", "historical")
_COMPONENTS = tuple(getattr(_Metric, f"{name}_confidence") for name in _NAMES)
_COUNTS = ("count", "complete_count", "workflow_count")
_PAIRS = tuple((one, other) for one in range(4) for other in range(one, 4))


class Weights(Result):
    """What each component counts for in `confidence_score`: not below 0, and 1 together."""

    trigger: float
    context: float
    capability: float
    historical: float

    @property
    def values(self) -> tuple[float, float, float, float]:
        """The four in the order of the columns."""
        return self.trigger, self.context, self.capability, self.historical


ROUTER_WEIGHTS = Weights(
    trigger=TRIGGER_WEIGHT,
    context=CONTEXT_WEIGHT,
    capability=CAPABILITY_WEIGHT,
    historical=HISTORICAL_WEIGHT,
)
"""What the router weighs with."""


class WeightSuggestion(Result):
    """Weights that would have foretold the outcome of `count` decisions of some workflows best.

    `complete_count` of them have all four components. The Brier scores are held-out: each decision
    is foretold with weights that its workflow had no part in; `gain` is how much lower the
    suggested weights' is, as the mean over the folds, with its interval. `is_better` is said only
    where the interval lies above 0. Without enough data there are counts only.
    """

    count: int
    complete_count: int
    workflow_count: int
    has_enough_data: bool
    current: Weights
    suggested: Weights | None = None
    current_brier_score: float | None = None
    suggested_brier_score: float | None = None
    gain: float | None = None
    gain_interval: Interval | None = None
    is_better: bool = False


def select_fold_sums(
    window: Window,
    *,
    folds: int = FOLDS,
    limit: int = MAX_DECISIONS,
    success_from_quality: float | None = None,
) -> Select[Any]:
    """Build the statement: of each fold the counts, and the sums that least squares needs.

    Workflows are dealt to the folds in the order of their `correlation_id`; a decision without one
    is a workflow of its own.
    """
    _require_bounds(folds, limit)
    newest = _newest(window, limit, success_from_quality).subquery("newest")
    place = func.dense_rank().over(order_by=newest.c.workflow)
    dealt = select(newest, (place % folds).label("fold")).subquery("dealt")
    parts, success = [dealt.c[name] for name in _NAMES], dealt.c.success
    columns: list[ColumnElement[Any]] = [
        func.count().label("count"),
        func.count().filter(dealt.c.is_complete).label("complete_count"),
        func.count(distinct(dealt.c.workflow)).label("workflow_count"),
        func.sum(success).label("successes"),
        *(func.sum(part * success).label(f"{part.name}_success") for part in parts),
        *(func.sum(parts[i] * parts[j]).label(f"{_NAMES[i]}_{_NAMES[j]}") for i, j in _PAIRS),
    ]
    return select(*columns).group_by(dealt.c.fold).order_by(dealt.c.fold)


async def suggest_weights(
    session: AsyncSession,
    window: Window,
    *,
    minimum: int = MINIMUM_DECISIONS,
    folds: int = FOLDS,
    limit: int = MAX_DECISIONS,
    current: Weights = ROUTER_WEIGHTS,
    success_from_quality: float | None = None,
) -> WeightSuggestion:
    """Fit weights to the `limit` newest validated decisions of the window with a known success.

    They minimise the Brier score (mean of (weighted sum - success)², success being 1 or 0) among
    weights that are not below 0 and are 1 together; of several as good, those nearest to
    `current`. As in the router's formula, a component that is NULL adds nothing; decisions with no
    component at all are left out. `success_from_quality` is that of `calibration`.

    The gain over `current` is told by k-fold cross-validation, a workflow lying in one fold as a
    whole, with a 95 % interval by the corrected resampled t-test (Nadeau and Bengio 2003), since
    the folds' training data overlap. It needs `minimum` complete decisions and as many workflows
    as folds. Raises MissingExtraError without the extra [weights], and InvalidValueError.
    """
    if minimum < _LEAST_MINIMUM:
        raise InvalidValueError("minimum", f"must be at least {_LEAST_MINIMUM}")
    _require_weighting(current)
    statement = select_fold_sums(
        window, folds=folds, limit=limit, success_from_quality=success_from_quality
    )
    # Its import takes long, and the fit some milliseconds: neither is for the event loop.
    solver = await asyncio.to_thread(_solver)
    rows = (await execute(session, statement)).mappings().all()
    told: dict[str, Any] = {name: sum(row[name] for row in rows) for name in _COUNTS}
    enough = told["complete_count"] >= minimum and told["workflow_count"] >= folds
    if enough:
        told |= await asyncio.to_thread(_fitted, solver, [_moments(row) for row in rows], current)
    return WeightSuggestion(has_enough_data=enough, current=current, **told)


@dataclass(frozen=True, slots=True)
class _Moments:
    """What the squared error of any weights over some decisions can be told from.

    `products` are the upper triangle of XᵀX in the order of _PAIRS, `with_success` is Xᵀy.
    """

    count: int
    successes: float
    with_success: tuple[float, ...]
    products: tuple[float, ...]

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(
            self.count - other.count,
            self.successes - other.successes,
            _less(self.with_success, other.with_success),
            _less(self.products, other.products),
        )

    def brier_score(self, weights: Sequence[float]) -> float:
        """Return the mean of (Xw - y)²; y is its own square."""
        squares = sum(
            (1 if i == j else 2) * weights[i] * weights[j] * product
            for (i, j), product in zip(_PAIRS, self.products, strict=True)
        )
        return (squares - 2 * _dot(weights, self.with_success) + self.successes) / self.count

    def slope(self, weights: Sequence[float]) -> list[float]:
        """Return the gradient of the Brier score."""
        slope = [-2 * each / self.count for each in self.with_success]
        for (i, j), product in zip(_PAIRS, self.products, strict=True):
            slope[i] += 2 * weights[j] * product / self.count
            if i != j:
                slope[j] += 2 * weights[i] * product / self.count
        return slope


def _require_bounds(folds: int, limit: int) -> None:
    if folds < _LEAST_FOLDS:
        raise InvalidValueError("folds", f"must be at least {_LEAST_FOLDS}")
    if limit < 1:
        raise InvalidValueError("limit", "must be at least 1")


def _require_weighting(weights: Weights) -> None:
    if min(weights.values) < 0 or not isclose(sum(weights.values), 1, abs_tol=1e-6):
        raise InvalidValueError("current", "must not be below 0, and must be 1 together")


def _newest(window: Window, limit: int, success_from_quality: float | None) -> Select[Any]:
    success, known = success_known(success_from_quality), func.num_nonnulls(*_COMPONENTS)
    return (
        select(
            func.coalesce(_Metric.correlation_id, _Metric.id).label("workflow"),
            cast(success, Integer).label("success"),
            (known == len(_COMPONENTS)).label("is_complete"),
            *(
                func.coalesce(component, literal(0, Numeric)).label(name)
                for name, component in zip(_NAMES, _COMPONENTS, strict=True)
            ),
        )
        .where(
            require_window(window).holds(_Metric),
            _Metric.selection_validated.is_(True),
            success.is_not(None),
            known > 0,
        )
        .order_by(_Metric.id.desc())
        .limit(limit)
    )


def _moments(found: RowMapping) -> _Moments:
    return _Moments(
        count=found["count"],
        successes=float(found["successes"]),
        with_success=tuple(float(found[f"{name}_success"]) for name in _NAMES),
        products=tuple(float(found[f"{_NAMES[i]}_{_NAMES[j]}"]) for i, j in _PAIRS),
    )


def _fitted(solver: Any, folds: Sequence[_Moments], current: Weights) -> dict[str, Any]:
    everything = _together(folds)
    held_out = [fold.brier_score(_fit(solver, everything - fold, current)) for fold in folds]
    now = [fold.brier_score(current.values) for fold in folds]
    gains = [round(gain, _GAIN_PLACES) for gain in _less(now, held_out)]
    interval = _gain_interval(gains)
    suggested = _fit(solver, everything, current)
    return {
        "suggested": Weights(**dict(zip(_NAMES, suggested, strict=True))),
        "current_brier_score": fmean(now),
        "suggested_brier_score": fmean(held_out),
        "gain": fmean(gains),
        "gain_interval": interval,
        "is_better": interval.low > 0,
    }


def _gain_interval(gains: Sequence[float]) -> Interval:
    count = len(gains)
    # 1 / (count - 1) is the size of a fold by that of the data its weights were fitted to.
    return mean_interval(fmean(gains), variance(gains) * (1 / count + 1 / (count - 1)), count)


def _fit(solver: Any, data: _Moments, current: Weights) -> list[float]:
    """Minimise the Brier score on the simplex: a convex problem of four numbers."""
    start = current.values

    def loss(weights: Sequence[float]) -> float:
        away = _less(weights, start)
        return data.brier_score(weights) + _RIDGE * _dot(away, away)

    def slope(weights: Sequence[float]) -> list[float]:
        away = _less(weights, start)
        return [a + 2 * _RIDGE * b for a, b in zip(data.slope(weights), away, strict=True)]

    found = solver.minimize(
        loss,
        start,
        jac=slope,
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: sum(w) - 1, "jac": lambda _: [1.0] * 4},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    above = [max(float(weight), 0.0) for weight in found.x]
    return [weight / sum(above) for weight in above]


def _together(folds: Sequence[_Moments]) -> _Moments:
    return _Moments(
        sum(fold.count for fold in folds),
        sum(fold.successes for fold in folds),
        tuple(map(sum, zip(*(fold.with_success for fold in folds), strict=True))),
        tuple(map(sum, zip(*(fold.products for fold in folds), strict=True))),
    )


def _less(these: Sequence[float], those: Sequence[float]) -> tuple[float, ...]:
    return tuple(one - other for one, other in zip(these, those, strict=True))


def _dot(these: Sequence[float], those: Sequence[float]) -> float:
    return sum(one * other for one, other in zip(these, those, strict=True))


def _solver() -> Any:
    try:
        return import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        if error.name != "scipy":
            raise
        raise MissingExtraError("weights", "The suggestion of weights") from error
