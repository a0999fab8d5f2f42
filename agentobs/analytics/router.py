"""How fast the router decides, what its cache saves, and where neither does.

Every row of router_performance_metrics counts, whatever its `metric_type`, as in docs/queries.md:
the type is an open word, and the recorder writes one row a decision under any of them. A host whose
cache look-ups are rows beside its decisions names the types that it means by `metric_types`. Each
number is of the rows that know it: a look-up without a time is in no mean of times.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, and_, case, func, literal, select

from agentobs.analytics.aggregates import mean, percentile, rate
from agentobs.analytics.folded import count_of, percentile_sources, ratio, read_folded
from agentobs.analytics.results import Result, Table, read_rows, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import RouterPerformanceMetric
from agentobs.rollups import DAY, HOUR, ROUTING, TARGET_US, Shape, Span, key_floor, merged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

MOST_BUCKETS = 10_000

_Metric = RouterPerformanceMetric
_PARTS = ("cache_lookup_us", "trigger_matching_us", "confidence_scoring_us")
# What the rollups were made for: all types, and the usual target.
_FOLDED = (None, TARGET_US)
# A Monday before the first instant that a window knows.
_ORIGIN = datetime(1969, 12, 29, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RoutingSummary(Result):
    """What the router did from `begins_at` on, before `ends_at`.

    `timed` are the decisions with a total time, of which `over_target_share` took as long as the
    target or longer; `cache_lookups` are those that know whether the cache hit. The mean age is of
    hits. Percentiles are times that occurred, or within one per cent of one.
    """

    begins_at: datetime
    ends_at: datetime
    decisions: int
    timed: int
    mean_total_us: float | None
    p50_total_us: int | None
    p95_total_us: int | None
    p99_total_us: int | None
    over_target_share: float | None
    mean_cache_lookup_us: float | None
    p95_cache_lookup_us: int | None
    mean_trigger_matching_us: float | None
    p95_trigger_matching_us: int | None
    mean_confidence_scoring_us: float | None
    p95_confidence_scoring_us: int | None
    cache_lookups: int
    cache_hit_rate: float | None
    mean_cache_age_seconds: float | None


class RoutingBucket(RoutingSummary):
    """One step of a series; the window cuts off a part of one that is not whole."""

    is_whole: bool


# What a step without rows still knows.
_EMPTY: dict[str, Any] = dict.fromkeys(RoutingSummary.model_fields) | {
    "decisions": 0,
    "timed": 0,
    "cache_lookups": 0,
}


def select_routing(
    window: Window,
    every: timedelta,
    *,
    metric_types: Collection[str] | None = None,
    target_us: int = TARGET_US,
) -> Select[Any]:
    """Select the numbers of each bucket that has rows, oldest first; `step` counts them from 1 on.

    A row lies in the bucket of its key, as it lies in the window. Raises InvalidValueError as
    `routing` does.
    """
    keys = [key_floor(begin) for begin in _begins(window, every)]
    step = func.width_bucket(_Metric.id, literal(keys, ARRAY(Uuid)))
    return (
        select(step.label("step"), *_numbers(target_us))
        .where(rows_of(window, metric_types))
        .group_by(step)
        .order_by(step)
    )


def select_routing_summary(
    window: Window, *, metric_types: Collection[str] | None = None, target_us: int = TARGET_US
) -> Select[Any]:
    """Select the numbers of the whole window: one row, also where it is empty."""
    return select(*_numbers(target_us)).where(rows_of(window, metric_types))


async def routing(
    session: AsyncSession,
    window: Window,
    every: timedelta,
    *,
    metric_types: Collection[str] | None = None,
    target_us: int = TARGET_US,
) -> Table[RoutingBucket]:
    """Return the router's numbers in steps of `every`, oldest first, those without rows included.

    `every` is an even part of a day, or so many whole days: steps begin with a UTC day, those of
    weeks on a Monday. Raises InvalidValueError for another one, and beyond 10,000 buckets.
    Steps of whole hours come from the rollups where these are folded, if all types and the usual
    target are asked for: the percentiles of an hour are exact then, those of longer steps within
    one per cent.
    """
    begins = list(_begins(window, every))
    known = await _folded_steps(session, window, every, begins, (metric_types, target_us))
    if known is None:
        statement = select_routing(window, every, metric_types=metric_types, target_us=target_us)
        found = await read_rows(session, statement)
        known = {begins[row["step"] - 1]: row for row in found}
    buckets = [_bucket(window, every, begin, known.get(begin, {})) for begin in begins]
    return table_of(RoutingBucket, buckets)


async def routing_summary(
    session: AsyncSession,
    window: Window,
    *,
    metric_types: Collection[str] | None = None,
    target_us: int = TARGET_US,
) -> RoutingSummary:
    """Return the router's numbers over the whole window, from the rollups as `routing` does."""
    row = await _folded_summary(session, window, (metric_types, target_us))
    if row is None:
        statement = select_routing_summary(window, metric_types=metric_types, target_us=target_us)
        (row,) = await read_rows(session, statement)
    return RoutingSummary(**_EMPTY | row | {"begins_at": window.since, "ends_at": window.until})


async def _folded_steps(
    session: AsyncSession,
    window: Window,
    every: timedelta,
    begins: list[datetime],
    asked: tuple[Collection[str] | None, int],
) -> dict[datetime, dict[str, Any]] | None:
    """Return the numbers of each step that has rows; None where only rows can answer."""
    if asked != _FOLDED or every % HOUR:
        return None
    shape = Shape(ROUTING, has_steps=True, has_days=not every % DAY)
    span = Span(window.since, window.until, begins)
    found = await read_folded(session, shape, span, _select_folded(shape))
    return None if found is None else {begins[row["step"] - 1]: row for row in found}


async def _folded_summary(
    session: AsyncSession, window: Window, asked: tuple[Collection[str] | None, int]
) -> dict[str, Any] | None:
    if asked != _FOLDED:
        return None
    shape, span = Shape(ROUTING), Span(require_window(window).since, window.until)
    found = await read_folded(session, shape, span, _select_folded(shape))
    # A window without rows has no row among what was merged.
    return None if found is None else next(iter(found), {})


@cache
def _select_folded(shape: Shape) -> Select[Any]:
    found = merged(shape)
    timed = found.c.total_routing_time_us_rows
    return select(
        found.c.step,
        count_of(found.c.decisions).label("decisions"),
        count_of(timed).label("timed"),
        ratio(found.c.total_routing_time_us_sum, timed).label("mean_total_us"),
        ratio(found.c.over_target, timed).label("over_target_share"),
        *(
            ratio(found.c[f"{name}_sum"], found.c[f"{name}_rows"]).label(f"mean_{name}")
            for name in _PARTS
        ),
        count_of(found.c.cache_lookups).label("cache_lookups"),
        ratio(found.c.cache_hits, found.c.cache_lookups).label("cache_hit_rate"),
        ratio(found.c.cache_age_seconds_sum, found.c.cache_ages).label("mean_cache_age_seconds"),
        *percentile_sources(shape, found),
    )


def rows_of(window: Window, metric_types: Collection[str] | None) -> ColumnElement[bool]:
    """Return the condition for the router's rows in a window; all types where none is named."""
    if isinstance(metric_types, str):
        raise InvalidValueError("metric_types", "must be a collection of texts, got one text")
    if metric_types is None:
        return require_window(window).holds(_Metric)
    return and_(
        require_window(window).holds(_Metric), _Metric.metric_type.in_(sorted(metric_types))
    )


def _numbers(target_us: int) -> list[ColumnElement[Any]]:
    total, hit = _Metric.total_routing_time_us, _Metric.cache_hit
    return [
        func.count().label("decisions"),
        func.count(total).label("timed"),
        mean(total).label("mean_total_us"),
        percentile(total, 0.5).label("p50_total_us"),
        percentile(total, 0.95).label("p95_total_us"),
        percentile(total, 0.99).label("p99_total_us"),
        rate(total >= target_us).label("over_target_share"),
        *(column for name in _PARTS for column in _part(name)),
        func.count(hit).label("cache_lookups"),
        rate(hit).label("cache_hit_rate"),
        mean(case((hit.is_(True), _Metric.cache_age_seconds))).label("mean_cache_age_seconds"),
    ]


def _part(name: str) -> Iterator[ColumnElement[Any]]:
    column = getattr(_Metric, name)
    yield mean(column).label(f"mean_{name}")
    yield percentile(column, 0.95).label(f"p95_{name}")


def _bucket_count(window: Window, every: timedelta) -> int:
    require_window(window)
    if not isinstance(every, timedelta):
        raise InvalidValueError("every", "must be a timedelta, such as timedelta(hours=1)")
    if every < _MICROSECOND or (DAY % every and every % DAY):
        raise InvalidValueError("every", "must be an even part of a day, or so many whole days")
    first, last = (
        (window.since - _ORIGIN) // every,
        (window.until - _MICROSECOND - _ORIGIN) // every,
    )
    if (count := last - first + 1) > MOST_BUCKETS:
        raise InvalidValueError(
            "every",
            f"makes {count:,} buckets of this window: take a longer step, or a shorter window, "
            f"for {MOST_BUCKETS:,} at most",
        )
    return count


def _begins(window: Window, every: timedelta) -> Iterator[datetime]:
    count = _bucket_count(window, every)
    first = _ORIGIN + (window.since - _ORIGIN) // every * every
    return (first + number * every for number in range(count))


def _bucket(
    window: Window, every: timedelta, begins_at: datetime, row: dict[str, Any]
) -> RoutingBucket:
    is_whole = begins_at >= window.since and window.until - begins_at >= every
    # The last instants that there are lie in a step that has no end.
    ends_at = begins_at + min(every, _LAST - begins_at)
    span = {"begins_at": begins_at, "ends_at": ends_at, "is_whole": is_whole}
    return RoutingBucket.model_validate(_EMPTY | row | span)
