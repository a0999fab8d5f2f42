"""Calibration: what the router's confidence was worth, once the outcome was known."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import ColumnElement, Integer, Numeric, cast, func, literal, null, select

from agentobs.analytics.results import Result, Table, execute, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

Grouping = Literal["agent", "strategy"]

MINIMUM_DECISIONS = 20
"""How many outcomes a number is told from, by default."""

MAX_BINS = 100

_LEAST_MINIMUM = 5
_Z = NormalDist().inv_cdf(0.975)

_Metric = RouterPerformanceMetric
_GROUPS: dict[Grouping | None, ColumnElement[Any]] = {
    None: null(),
    "agent": _Metric.selected_agent.expression,
    "strategy": _Metric.selection_strategy.expression,
}


class Verdict(StrEnum):
    """What the interval of the prediction error tells; undecided where it holds 0."""

    OVERCONFIDENT = "overconfident"
    UNDERCONFIDENT = "underconfident"
    UNDECIDED = "undecided"


class Interval(Result):
    """A 95 % confidence interval, both ends included."""

    low: float
    high: float


class ReliabilityBin(Result):
    """The decisions whose confidence lies from `low_confidence` up to `high_confidence`.

    The upper end belongs to the next bin, but for the last one, which holds 1. `count` decisions
    have a known success: `mean_confidence`, `success_rate` and its Wilson interval are theirs, and
    `mean_quality_score` is of those with a known quality.
    """

    low_confidence: float
    high_confidence: float
    count: int
    mean_confidence: float | None
    success_rate: float | None
    success_rate_interval: Interval | None
    mean_quality_score: float | None


class GroupCalibration(Result):
    """How well confidence foretold the outcome of `count` validated decisions of one group.

    A number wants a minimum of outcomes of its own kind, and is None below it: the calibration
    error, the Brier score and the bins (none of them then) want `success_count` decisions with a
    known success, the prediction error and the verdict want `quality_count` with a known quality.
    `has_enough_data` tells whether there is any number.
    """

    group: str | None
    count: int
    success_count: int
    quality_count: int
    has_enough_data: bool
    expected_calibration_error: float | None
    brier_score: float | None
    mean_prediction_error: float | None
    prediction_error_interval: Interval | None
    verdict: Verdict | None
    bins: Table[ReliabilityBin]


class Calibration(Result):
    """The calibration of all decisions together, and of each group, most decisions first.

    Of many groups in perfect order about one in twenty has a verdict by chance.
    """

    overall: GroupCalibration
    groups: Table[GroupCalibration]

    @property
    def overconfident(self) -> tuple[str | None, ...]:
        """The groups whose confidence lies above their quality."""
        return self._with_verdict(Verdict.OVERCONFIDENT)

    @property
    def underconfident(self) -> tuple[str | None, ...]:
        """The groups whose confidence lies below their quality."""
        return self._with_verdict(Verdict.UNDERCONFIDENT)

    def _with_verdict(self, verdict: Verdict) -> tuple[str | None, ...]:
        return tuple(each.group for each in self.groups if each.verdict is verdict)


def select_calibration(
    window: Window,
    *,
    by: Grouping | None = None,
    bins: int = 10,
    success_from_quality: float | None = None,
) -> Select[Any]:
    """Build the statement: counts and sums of each bin (1 to `bins`) of each group."""
    _require_options(by, bins)
    told = _decisions(window, by, bins, success_from_quality).subquery("decisions")
    success, quality = cast(told.c.success, Integer), told.c.quality
    surplus, error = told.c.confidence - success, told.c.confidence - quality
    return select(
        told.c.group_name,
        told.c.bin,
        func.count().label("count"),
        func.count(success).label("success_count"),
        func.sum(told.c.confidence).filter(success.is_not(None)).label("confidence"),
        func.sum(success).label("successes"),
        func.sum(surplus * surplus).label("squared_surplus"),
        func.count(quality).label("quality_count"),
        func.sum(quality).label("quality"),
        func.sum(error).label("error"),
        func.sum(error * error).label("squared_error"),
    ).group_by(told.c.group_name, told.c.bin)


async def calibration(
    session: AsyncSession,
    window: Window,
    by: Grouping | None = None,
    bins: int = 10,
    *,
    minimum: int = MINIMUM_DECISIONS,
    success_from_quality: float | None = None,
) -> Calibration:
    """Compare the confidence of validated decisions with what came of them.

    A decision without `actual_success` counts by its quality alone; with `success_from_quality` it
    is a success where its quality is at least that.

    - Expected calibration error: sum over bins of equal width of count / all * |success rate -
      mean confidence| (Naeini, Cooper and Hauskrecht 2015, AAAI).
    - Brier score: mean of (confidence - success)², success being 1 or 0 (Brier 1950).
    - Prediction error: confidence - quality, from the two columns; its mean has an interval by
      Student's t, which takes decisions as independent.
    - Success rates of bins: Wilson's score interval (Wilson 1927).

    Raises InvalidValueError.
    """
    if minimum < _LEAST_MINIMUM:
        raise InvalidValueError("minimum", f"must be at least {_LEAST_MINIMUM}")
    statement = select_calibration(
        window, by=by, bins=bins, success_from_quality=success_from_quality
    )
    found = [_Sums(*row) for row in await execute(session, statement)]
    overall = _calibrated(None, found, bins, minimum)
    return Calibration(overall=overall, groups=_grouped(found, bins, minimum) if by else _none())


def mean_interval(mean: float, variance: float, count: int) -> Interval:
    """Return Student's interval for a mean of `count` values, `variance` being that of the mean."""
    margin = _student(count - 1) * sqrt(variance)
    return Interval(low=mean - margin, high=mean + margin)


def success_known(success_from_quality: float | None) -> ColumnElement[Any]:
    """Return whether a decision was a success, NULL where that is not known."""
    if success_from_quality is None:
        return _Metric.actual_success.expression
    if not 0 <= success_from_quality <= 1:
        raise InvalidValueError("success_from_quality", "must be within 0 and 1, or None")
    least = literal(Decimal(str(success_from_quality)), Numeric)
    return func.coalesce(_Metric.actual_success, _Metric.actual_quality_score >= least)


@dataclass(frozen=True, slots=True)
class _Sums:
    """A row of the statement; sums of numeric columns are exact, and None over nothing."""

    group: str | None
    bin: int
    count: int
    success_count: int
    confidence: Decimal | None
    successes: int | None
    squared_surplus: Decimal | None
    quality_count: int
    quality: Decimal | None
    error: Decimal | None
    squared_error: Decimal | None


def _require_options(by: object, bins: int) -> None:
    if by is not None and by not in get_args(Grouping):
        raise InvalidValueError("by", f"must be None or one of {', '.join(get_args(Grouping))}")
    if not 1 <= bins <= MAX_BINS:
        raise InvalidValueError("bins", f"must be within 1 and {MAX_BINS}")


def _decisions(
    window: Window, by: Grouping | None, bins: int, success_from_quality: float | None
) -> Select[Any]:
    # A confidence of 1 is beyond the last bucket.
    bucket = func.width_bucket(
        _Metric.confidence_score, literal(0, Numeric), literal(1, Numeric), bins
    )
    return select(
        _GROUPS[by].label("group_name"),
        func.least(bucket, bins).label("bin"),
        _Metric.confidence_score.label("confidence"),
        success_known(success_from_quality).label("success"),
        _Metric.actual_quality_score.label("quality"),
    ).where(
        require_window(window).holds(_Metric),
        _Metric.selection_validated.is_(True),
        _Metric.confidence_score.is_not(None),
    )


def _none() -> Table[GroupCalibration]:
    return table_of(GroupCalibration, [])


def _grouped(found: Iterable[_Sums], bins: int, minimum: int) -> Table[GroupCalibration]:
    groups: dict[str | None, list[_Sums]] = {}
    for row in found:
        groups.setdefault(row.group, []).append(row)
    told = [_calibrated(group, rows, bins, minimum) for group, rows in groups.items()]
    told.sort(key=lambda each: (-each.count, each.group is None, each.group or ""))
    return table_of(GroupCalibration, told)


def _calibrated(
    group: str | None, rows: Sequence[_Sums], bins: int, minimum: int
) -> GroupCalibration:
    success_count, quality_count = _sum(rows, "success_count"), _sum(rows, "quality_count")
    by_success, by_quality = success_count >= minimum, quality_count >= minimum
    table = _bins(rows, bins) if by_success else []
    mean, interval = _prediction_error(rows, quality_count) if by_quality else (None, None)
    return GroupCalibration(
        group=group,
        count=_sum(rows, "count"),
        success_count=success_count,
        quality_count=quality_count,
        has_enough_data=by_success or by_quality,
        expected_calibration_error=_calibration_error(table) if by_success else None,
        brier_score=_ratio(_sum(rows, "squared_surplus"), success_count) if by_success else None,
        mean_prediction_error=mean,
        prediction_error_interval=interval,
        verdict=None if interval is None else _verdict(interval),
        bins=table_of(ReliabilityBin, table),
    )


def _bins(rows: Sequence[_Sums], bins: int) -> list[ReliabilityBin]:
    held: list[list[_Sums]] = [[] for _ in range(bins)]
    for row in rows:
        held[row.bin - 1].append(row)
    return [_bin(number, bins, members) for number, members in enumerate(held)]


def _bin(number: int, bins: int, rows: Sequence[_Sums]) -> ReliabilityBin:
    count, successes = _sum(rows, "success_count"), _sum(rows, "successes")
    return ReliabilityBin(
        low_confidence=number / bins,
        high_confidence=(number + 1) / bins,
        count=count,
        mean_confidence=_ratio(_sum(rows, "confidence"), count),
        success_rate=_ratio(successes, count),
        success_rate_interval=_wilson(successes, count) if count else None,
        mean_quality_score=_ratio(_sum(rows, "quality"), _sum(rows, "quality_count")),
    )


def _calibration_error(table: Sequence[ReliabilityBin]) -> float:
    gaps = (
        each.count * abs(each.success_rate - each.mean_confidence)
        for each in table
        if each.success_rate is not None and each.mean_confidence is not None
    )
    return sum(gaps) / sum(each.count for each in table)


def _prediction_error(rows: Sequence[_Sums], count: int) -> tuple[float, Interval]:
    total, squares = Decimal(_sum(rows, "error")), Decimal(_sum(rows, "squared_error"))
    # Of exact sums, so nothing is lost by the difference; of the mean, hence by count again.
    variance = max(squares - total * total / count, Decimal(0)) / (count - 1) / count
    mean = float(total / count)
    return mean, mean_interval(mean, float(variance), count)


def _verdict(interval: Interval) -> Verdict:
    if interval.low > 0:
        return Verdict.OVERCONFIDENT
    return Verdict.UNDERCONFIDENT if interval.high < 0 else Verdict.UNDECIDED


def _wilson(successes: int, count: int) -> Interval:
    rate, spread = successes / count, _Z * _Z / count
    centre = rate + spread / 2
    margin = _Z * sqrt((rate * (1 - rate) + spread / 4) / count)
    low, high = (centre - margin) / (1 + spread), (centre + margin) / (1 + spread)
    # Rounding must not leave 0 and 1 outside where nothing, or all, succeeded.
    return Interval(
        low=0.0 if successes == 0 else max(low, 0.0),
        high=1.0 if successes == count else min(high, 1.0),
    )


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t: Abramowitz and Stegun 26.7.5.

    It is off by less than 0.1 % from 4 degrees of freedom on, which is the least asked for.
    """
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _sum(rows: Iterable[_Sums], name: str) -> Any:
    return sum(getattr(row, name) or 0 for row in rows)


def _ratio(total: Decimal | int, count: int) -> float | None:
    return float(total / count) if count else None
