"""Checks of what agents, router and tables do against bounds, each with the rows behind it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import (
    BigInteger,
    Float,
    Text,
    cast,
    column,
    func,
    literal,
    select,
    table,
    union_all,
)
from sqlalchemy.dialects.postgresql import OID

from agentobs.analytics.performance import numbers_of_agents
from agentobs.analytics.results import Result, Table, execute, table_of
from agentobs.analytics.router import routing_summary
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.rollups.tables import ATTACHED

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Row, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute

    from agentobs.analytics.window import Window
    from agentobs.models.base import Base
    from agentobs.sessions import PoolStats

MOST_COUNTED = 10_000
"""Of rows beyond the retention so many are counted, for there may be years of them."""

_Event, _Metric = AgentTransformationEvent, RouterPerformanceMetric
_TABLES: tuple[tuple[type[Base], InstrumentedAttribute[datetime]], ...] = (
    (_Event, _Event.started_at),
    (_Metric, _Metric.measured_at),
)
_DAY = timedelta(days=1)
# So far behind its month's end a row of it may lie, as the clocks of client and server differ.
_SLACK = _DAY

_PART = table(
    "pg_class",
    column("oid", OID),
    column("relname", Text),
    column("relkind", Text),
    column("reltuples", Float),
    schema="pg_catalog",
)


class AlertThresholds(BaseModel):
    """The bounds of the checks; rates are 0 to 1. Raises InvalidValueError for a bad one.

    A rate fires below its bound, every other number above. With fewer than `min_rows` rows a rate
    or percentile does not fire.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    min_cache_hit_rate: float = Field(default=0.6, ge=0, le=1)
    min_success_rate: float = Field(default=0.8, ge=0, le=1)
    max_routing_p95_ms: float = Field(default=100, gt=0, allow_inf_nan=False)
    max_acquisition_p95_ms: float = Field(default=50, gt=0, allow_inf_nan=False)
    retention: timedelta = Field(default=timedelta(days=90), ge=_DAY)
    max_partition_rows: int = Field(default=1_000_000, ge=1)
    min_rows: int = Field(default=20, ge=1)

    def __init__(self, **values: Any) -> None:
        """Check the bounds; raise InvalidValueError that names the field."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            field = ".".join([type(self).__name__, *map(str, fault["loc"])])
            raise InvalidValueError(field, f"is refused: {fault['msg']}") from None


DEFAULT_THRESHOLDS = AlertThresholds()


class Alert(Result):
    """A check: whether `value` is beyond `bound`, for `subject` (an agent, table or partition).

    The subject is None where it is the router or the pool; the unit is in the name. `rows` are
    what the value was made of, None where that is not known. Without enough data nothing fires.
    """

    name: str
    subject: str | None
    value: float | None
    bound: float
    rows: int | None
    has_enough_data: bool
    is_firing: bool


def select_expired_rows(window: Window, retention: timedelta) -> CompoundSelect[Any]:
    """Select of each table how many rows are in months that ended so long before `window.until`.

    Counts at most 10,000; `oldest_at` is of the least key. Retention drops months as wholes, so
    younger rows of the same age are not late.
    """
    before = _expired_before(require_window(window).until, retention)
    return union_all(*(_select_expired(model, instant, before) for model, instant in _TABLES))


def select_partition_rows() -> Select[Any]:
    """Select each partition with the rows that the server estimates; NULL if never analyzed."""
    estimated = cast(func.nullif(_PART.c.reltuples, -1), BigInteger)
    return (
        select(_PART.c.relname.label("name"), estimated.label("rows"))
        .join_from(ATTACHED, _PART, _PART.c.oid == ATTACHED.c.partition)
        # A parent's own estimate is the sum of its leaves: only leaves can be too large.
        .where(_PART.c.relkind == "r")
    )


async def alerts(
    session: AsyncSession,
    window: Window,
    thresholds: AlertThresholds = DEFAULT_THRESHOLDS,
    *,
    pool: PoolStats | None = None,
) -> Table[Alert]:
    """Return all checks, those that fire first, then by name and subject.

    Rates and percentiles are of the window; the tables are looked at as they are, for the end of
    the window. How long single queries take is in no table, and not checked here: that is for
    pg_stat_statements. How long connections are waited for is the pool's to know: give
    `Database.pool_stats()` of the process in question, else it is not checked.
    """
    checks = [
        *await _of_router(session, window, thresholds),
        *await _of_agents(session, window, thresholds),
        *await _of_retention(session, window, thresholds),
        *await _of_partitions(session, thresholds),
        *_of_pool(pool, thresholds),
    ]
    checks.sort(key=lambda one: (not one.is_firing, one.name, one.subject or ""))
    return table_of(Alert, checks)


async def _of_router(
    session: AsyncSession, window: Window, thresholds: AlertThresholds
) -> list[Alert]:
    found = await routing_summary(session, window)
    p95_ms = None if found.p95_total_us is None else found.p95_total_us / 1000
    hits = _Sample(found.cache_hit_rate, found.cache_lookups, thresholds.min_rows)
    times = _Sample(p95_ms, found.timed, thresholds.min_rows)
    return [
        hits.below("cache_hit_rate", None, thresholds.min_cache_hit_rate),
        times.above("routing_p95_ms", None, thresholds.max_routing_p95_ms),
    ]


async def _of_agents(
    session: AsyncSession, window: Window, thresholds: AlertThresholds
) -> list[Alert]:
    (rows,) = await numbers_of_agents(session, window)
    samples = (
        (row["agent"], _Sample(row["success_rate"], row["finished"], thresholds.min_rows))
        for row in rows
    )
    bound = thresholds.min_success_rate
    return [sample.below("agent_success_rate", agent, bound) for agent, sample in samples]


async def _of_retention(
    session: AsyncSession, window: Window, thresholds: AlertThresholds
) -> list[Alert]:
    rows = await execute(session, select_expired_rows(window, thresholds.retention))
    return [_expired(row, window.until, thresholds.retention / _DAY) for row in rows]


def _expired(row: Row[Any], now: datetime, bound: float) -> Alert:
    # That nothing is so old is known, other than a rate without rows.
    age = None if row.oldest_at is None else (now - row.oldest_at) / _DAY
    return Alert(
        name="expired_rows_age_days",
        subject=row.table_name,
        value=age,
        bound=bound,
        rows=row.expired,
        has_enough_data=True,
        is_firing=row.expired > 0,
    )


async def _of_partitions(session: AsyncSession, thresholds: AlertThresholds) -> list[Alert]:
    rows = await execute(session, select_partition_rows())
    bound = thresholds.max_partition_rows
    return [_Sample(row.rows, row.rows).above("partition_rows", row.name, bound) for row in rows]


def _of_pool(pool: PoolStats | None, thresholds: AlertThresholds) -> list[Alert]:
    if pool is None:
        return []
    waits = _Sample(pool.acquisition_p95_ms, None)
    return [waits.above("connection_acquisition_p95_ms", None, thresholds.max_acquisition_p95_ms)]


class _Sample(NamedTuple):
    """A value and the rows that it was made of, where that is known."""

    value: float | None
    rows: int | None
    min_rows: int = 0

    def below(self, name: str, subject: str | None, bound: float) -> Alert:
        """Make a check that fires below the bound."""
        return self._alert(name, subject, bound, self.value is not None and self.value < bound)

    def above(self, name: str, subject: str | None, bound: float) -> Alert:
        """Make a check that fires above the bound."""
        return self._alert(name, subject, bound, self.value is not None and self.value > bound)

    def _alert(self, name: str, subject: str | None, bound: float, is_beyond: bool) -> Alert:
        is_enough = self.value is not None and (self.rows is None or self.rows >= self.min_rows)
        return Alert(
            name=name,
            subject=subject,
            value=self.value,
            bound=bound,
            rows=self.rows,
            has_enough_data=is_enough,
            is_firing=is_enough and is_beyond,
        )


def _select_expired(
    model: type[Base], instant: InstrumentedAttribute[datetime], before: datetime
) -> Select[Any]:
    table = model.__table__
    # By instants: keys that an application made itself hold none, and no retention reaches them.
    is_expired = instant < before
    some = select(literal(1)).select_from(table).where(is_expired).limit(MOST_COUNTED).subquery()
    oldest = select(instant).where(is_expired).order_by(table.c.id).limit(1)
    return select(
        literal(model.__tablename__).label("table_name"),
        select(func.count()).select_from(some).scalar_subquery().label("expired"),
        oldest.scalar_subquery().label("oldest_at"),
    )


def _expired_before(now: datetime, retention: timedelta) -> datetime:
    """Return the beginning of the first month that is to be kept."""
    if now - EPOCH - _SLACK <= retention:
        return EPOCH
    kept = now - retention - _SLACK
    return kept.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
