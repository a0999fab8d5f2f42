"""Add rows up to hours, and hours to days, and put the sums in the place of the former ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, func, insert, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from agentobs.rollups.hours import ONE_DAY, ONE_HOUR, as_table, key_at
from agentobs.rollups.tables import INSTANT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Executable, FromClause

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store

TIMES = bindparam("times", type_=ARRAY(INSTANT))
_TIMES = as_table(func.unnest(TIMES))
BEGINS_AT: ColumnElement[Any] = _TIMES.c.begins_at


async def add_up_hours(store: Store, family: Family, hours: Sequence[datetime]) -> None:
    """Add up the rows of hours, of each agent and of all."""
    agent = family.rows.c[family.agent]
    of_agents = {"agent": agent} | family.aggregates
    of_all = family.aggregates | family.percentiles
    await forget(store, family, hours, is_day=False, is_kept=False)
    for values, groups in ((of_agents, [BEGINS_AT, agent]), (of_all, [BEGINS_AT])):
        kind = kind_of(is_day=False, is_total=values is of_all, is_kept=False)
        found = select(*(kind | values).values()).select_from(rows_of_hours(family))
        statement = insert(family.rollup).from_select([*kind, *values], found.group_by(*groups))
        await with_times(store, statement, hours)


async def add_up_days(
    store: Store, family: Family, days: Sequence[datetime], *, is_kept: bool = False
) -> None:
    """Add up the hours of days, those that are kept or the others."""
    await forget(store, family, days, is_day=True, is_kept=is_kept)
    hour: Any = family.rollup.alias("hour")
    values = {"agent": hour.c.agent} | sums_of(family, hour)
    kind = kind_of(is_day=True, is_total=hour.c.is_total, is_kept=is_kept)
    is_within = and_(
        hour.c.begins_at >= BEGINS_AT,
        hour.c.begins_at < BEGINS_AT + ONE_DAY,
        hour.c.is_day.is_(False),
        hour.c.is_kept.is_(is_kept),
    )
    found = select(*(kind | values).values()).select_from(_TIMES.join(hour, is_within))
    grouped = found.group_by(BEGINS_AT, hour.c.is_total, hour.c.agent)
    await with_times(store, insert(family.rollup).from_select([*kind, *values], grouped), days)


async def forget(
    store: Store,
    family: Family,
    times: Sequence[datetime],
    *,
    is_day: bool,
    is_kept: bool,
    is_total: bool | None = None,
) -> None:
    """Forget the sums of hours or days, of all or of agents alone, or both."""
    rollup = family.rollup
    former = delete(rollup).where(
        rollup.c.begins_at == func.any(TIMES),
        rollup.c.is_day.is_(is_day),
        rollup.c.is_kept.is_(is_kept),
        or_(literal(is_total is None), rollup.c.is_total.is_(bool(is_total))),
    )
    await with_times(store, former, times)


def rows_of_hours(family: Family) -> FromClause:
    """Return the rows of the hours that are given as times, each beside its hour."""
    key = family.rows.c.id
    return _TIMES.join(
        family.rows, and_(key >= key_at(BEGINS_AT), key < key_at(BEGINS_AT + ONE_HOUR))
    )


def sums_of(family: Family, rollup: Any) -> dict[str, ColumnElement[Any]]:
    """Return what several rows of a rollup add up to."""
    return {name: func.sum(rollup.c[name]) for name in family.aggregates}


def kind_of(*, is_day: bool, is_total: Any, is_kept: bool) -> dict[str, ColumnElement[Any]]:
    """Return the columns that say what a row of a rollup is."""
    return {
        "begins_at": BEGINS_AT,
        "is_day": literal(is_day),
        "is_total": literal(is_total) if isinstance(is_total, bool) else is_total,
        "is_kept": literal(is_kept),
    }


async def with_times(store: Store, statement: Executable, times: Sequence[datetime]) -> None:
    """Execute a statement for hours or days, where there are any."""
    if times:
        await store.execute(statement, {"times": list(times)})
