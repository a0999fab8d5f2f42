"""Single decisions of the router that are worth a look: slow ones, and those made again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, not_, select

from agentobs.analytics.results import Result, Table, fetch
from agentobs.analytics.router import rows_of
from agentobs.errors import InvalidValueError
from agentobs.models import RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Select, Subquery
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

MOST_ROWS = 10_000

_Metric = RouterPerformanceMetric


class SlowDecision(Result):
    """A decision, and how long it and its parts took; None of what was not measured."""

    id: UUID
    correlation_id: UUID | None
    measured_at: datetime
    metric_type: str
    selected_agent: str | None
    selection_strategy: str | None
    cache_hit: bool | None
    total_routing_time_us: int
    cache_lookup_us: int | None
    trigger_matching_us: int | None
    confidence_scoring_us: int | None


class RepeatedRequest(Result):
    """A request that came more than once with the same context; None is one without a context.

    `cache_hits` and `cache_misses` are of all `requests`. A request that came for the first time
    in the window may be a miss by right: `missed_repeats` are the misses after that, which the
    cache could have answered. `repeated_us` is what all requests but the first took together, None
    where none of these has a time.
    """

    user_request_hash: str
    context_hash: str | None
    requests: int
    cache_hits: int
    cache_misses: int
    missed_repeats: int
    repeated_us: int | None
    first_seen_at: datetime
    last_seen_at: datetime


def select_slowest(
    window: Window, *, limit: int = 20, metric_types: Collection[str] | None = None
) -> Select[Any]:
    """Select the decisions with the longest total time, longest first, then newest first."""
    columns = [getattr(_Metric, name) for name in SlowDecision.model_fields]
    return (
        select(*columns)
        .where(rows_of(window, metric_types), _Metric.total_routing_time_us.is_not(None))
        .order_by(_Metric.total_routing_time_us.desc(), _Metric.id.desc())
        .limit(_checked(limit))
    )


def select_repeated_requests(
    window: Window, *, limit: int = 20, metric_types: Collection[str] | None = None
) -> Select[Any]:
    """Select the requests that came more than once, the most frequent first, then by hashes."""
    row = _numbered(window, metric_types)
    is_repeat, hit = row.c.number > 1, row.c.cache_hit
    keys = row.c.user_request_hash, row.c.context_hash
    return (
        select(
            *keys,
            func.count().label("requests"),
            func.count().filter(hit).label("cache_hits"),
            func.count().filter(not_(hit)).label("cache_misses"),
            func.count().filter(not_(hit), is_repeat).label("missed_repeats"),
            func.sum(row.c.total_routing_time_us).filter(is_repeat).label("repeated_us"),
            func.min(row.c.measured_at).label("first_seen_at"),
            func.max(row.c.measured_at).label("last_seen_at"),
        )
        .group_by(*keys)
        .having(func.count() > 1)
        .order_by(func.count().desc(), *keys)
        .limit(_checked(limit))
    )


async def slowest(
    session: AsyncSession,
    window: Window,
    limit: int = 20,
    *,
    metric_types: Collection[str] | None = None,
) -> Table[SlowDecision]:
    """Return the decisions with the longest total time, longest first, then newest first.

    Raises InvalidValueError for a limit that is not within 1 and 10,000.
    """
    statement = select_slowest(window, limit=limit, metric_types=metric_types)
    return await fetch(session, statement, SlowDecision)


async def repeated_requests(
    session: AsyncSession,
    window: Window,
    limit: int = 20,
    *,
    metric_types: Collection[str] | None = None,
) -> Table[RepeatedRequest]:
    """Return what was asked more than once, the most frequent first, then by hashes.

    Raises InvalidValueError for a limit that is not within 1 and 10,000.
    """
    statement = select_repeated_requests(window, limit=limit, metric_types=metric_types)
    return await fetch(session, statement, RepeatedRequest)


def _numbered(window: Window, metric_types: Collection[str] | None) -> Subquery:
    """Select the requests, each numbered from its first time in the window on."""
    keys = _Metric.user_request_hash, _Metric.context_hash
    return (
        select(
            *keys,
            _Metric.cache_hit,
            _Metric.total_routing_time_us,
            _Metric.measured_at,
            func.row_number().over(partition_by=keys, order_by=_Metric.id).label("number"),
        )
        .where(rows_of(window, metric_types), _Metric.user_request_hash.is_not(None))
        .subquery("request")
    )


def _checked(limit: int) -> int:
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidValueError("limit", f"must be within 1 and {MOST_ROWS:,}")
    return limit
