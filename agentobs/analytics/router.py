"""How fast the router decides, what its cache saves, and where neither does.

Every row of router_performance_metrics counts, whatever its `metric_type`, as in docs/queries.md:
the type is an open word, and the recorder writes one row a decision under any of them. A host whose
cache look-ups are rows beside its decisions names the types that it means by `metric_types`. Each
number is of the rows that know it: a look-up without a time is in no mean of times.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, Interval, and_, case, func, literal, select

from agentobs.analytics.aggregates import mean, percentile, rate
from agentobs.analytics.results import Result, Table, execute, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

TARGET_US = 100_000
"""A decision is to take less than this."""

MOST_BUCKETS = 10_000

_Metric = RouterPerformanceMetric
# What a step without rows still knows.
_COUNTS = {"decisions": 0, "timed": 0, "cache_lookups": 0}
# A Monday before the first instant that a window knows.
_ORIGIN = datetime(1969, 12, 29, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_DAY, _MICROSECOND = timedelta(days=1), timedelta(microseconds=1)


class RoutingSummary(Result):
    """What the router did from `begins_at` on, before `ends_at`.

    `timed` are the decisions with a total time, of which `over_target_share` took as long as the
    target or longer; `cache_lookups` are those that know whether the cache hit. The mean age is of
    hits. Percentiles are times that occurred.
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


def select_routing(
    window: Window,
    every: timedelta,
    *,
    metric_types: Collection[str] | None = None,
    target_us: int = TARGET_US,
) -> Select[Any]:
    """Select the numbers of each bucket that has rows, oldest first.

    A row whose `measured_at` differs from the instant of its key, by which it lies in the window,
    is in the window's bucket that comes nearest. Raises InvalidValueError as `routing` does.
    """
    _bucket_count(window, every)
    instant = func.least(
        func.greatest(_Metric.measured_at, _instant(window.since)),
        _instant(window.until - _MICROSECOND),
    )
    begins_at = func.date_bin(literal(every, Interval), instant, _instant(_ORIGIN))
    return (
        select(begins_at.label("begins_at"), *_numbers(target_us))
        .where(rows_of(window, metric_types))
        # By the name: the same expression again would be one of other parameters.
        .group_by("begins_at")
        .order_by("begins_at")
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
    """
    statement = select_routing(window, every, metric_types=metric_types, target_us=target_us)
    found = (await execute(session, statement)).mappings()
    known = {row["begins_at"].astimezone(UTC): dict(row) for row in found}
    buckets = [
        _bucket(window, every, begin, known.get(begin, {})) for begin in _begins(window, every)
    ]
    return table_of(RoutingBucket, buckets)


async def routing_summary(
    session: AsyncSession,
    window: Window,
    *,
    metric_types: Collection[str] | None = None,
    target_us: int = TARGET_US,
) -> RoutingSummary:
    """Return the router's numbers over the whole window."""
    statement = select_routing_summary(window, metric_types=metric_types, target_us=target_us)
    row = (await execute(session, statement)).mappings().one()
    return RoutingSummary(begins_at=window.since, ends_at=window.until, **row)


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
        *_part("cache_lookup_us"),
        *_part("trigger_matching_us"),
        *_part("confidence_scoring_us"),
        func.count(hit).label("cache_lookups"),
        rate(hit).label("cache_hit_rate"),
        mean(case((hit.is_(True), _Metric.cache_age_seconds))).label("mean_cache_age_seconds"),
    ]


def _part(name: str) -> Iterator[ColumnElement[Any]]:
    column = getattr(_Metric, name)
    yield mean(column).label(f"mean_{name}")
    yield percentile(column, 0.95).label(f"p95_{name}")


def _instant(value: datetime) -> ColumnElement[datetime]:
    return literal(value, DateTime(timezone=True))


def _bucket_count(window: Window, every: timedelta) -> int:
    require_window(window)
    if not isinstance(every, timedelta):
        raise InvalidValueError("every", "must be a timedelta, such as timedelta(hours=1)")
    if every < _MICROSECOND or (_DAY % every and every % _DAY):
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
    first = _ORIGIN + (window.since - _ORIGIN) // every * every
    return (first + number * every for number in range(_bucket_count(window, every)))


def _bucket(
    window: Window, every: timedelta, begins_at: datetime, row: dict[str, Any]
) -> RoutingBucket:
    nothing = dict.fromkeys(RoutingBucket.model_fields) | _COUNTS
    is_whole = begins_at >= window.since and window.until - begins_at >= every
    # The last instants that there are lie in a step that has no end.
    ends_at = begins_at + min(every, _LAST - begins_at)
    span = {"begins_at": begins_at, "ends_at": ends_at, "is_whole": is_whole}
    return RoutingBucket.model_validate(nothing | row | span)
