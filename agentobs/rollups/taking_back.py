"""Take rows that come back out of what was kept of them when they went."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    MetaData,
    Table,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    union_all,
)

from agentobs.rollups.adding import (
    BEGINS_AT,
    TIMES,
    add_up_days,
    forget,
    kind_of,
    rows_of_hours,
    sums_of,
    with_times,
)
from agentobs.rollups.folding import busy_hours
from agentobs.rollups.hours import DAY, floor_to

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import CTE, ColumnElement, Select

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store


async def take_back(
    store: Store, family: Family, loaded: str, since: datetime, until: datetime
) -> None:
    """Take away what rows of a table add up to that are to come back in this transaction.

    They stand in the table `loaded`; those that are there already are none that come back. Of an
    hour and agent never more rows are taken than were kept. That they are rows which were counted
    here, and not in another database, nothing tells: their keys went with them.
    """
    columns = (Column(column.name, column.type) for column in family.rows.columns)
    returning = replace(family, rows=Table(loaded, MetaData(), *columns))
    hours = await busy_hours(store, returning, since, until)
    await _subtract(store, family, returning, hours)
    await _add_up_totals(store, family, hours)
    await add_up_days(store, family, sorted({floor_to(hour, DAY) for hour in hours}), is_kept=True)


async def _subtract(
    store: Store, family: Family, returning: Family, hours: Sequence[datetime]
) -> None:
    both = union_all(_select_kept(family), _select_negated(family, returning)).subquery()
    sums = _without_zeros(family, sums_of(family, both))
    kind = _kind(both.c.begins_at, is_total=False)
    found = select(*kind.values(), both.c.agent, *sums.values()).group_by(
        both.c.begins_at, both.c.agent
    )
    left = found.having(func.sum(both.c[family.count]) > 0)
    statement = insert(family.rollup).from_select([*kind, "agent", *sums], left)
    await with_times(store, statement, hours)


def _select_kept(family: Family) -> Select[Any]:
    """Return what was kept of agents in these hours, which goes with the same statement."""
    rollup = family.rollup
    names = ["begins_at", "agent", *family.aggregates]
    kept: CTE = (
        delete(rollup)
        .where(
            rollup.c.begins_at == func.any(TIMES),
            rollup.c.is_day.is_(False),
            rollup.c.is_total.is_(False),
            rollup.c.is_kept.is_(True),
        )
        .returning(*(rollup.c[name] for name in names))
        .cte("kept")
    )
    return select(*(kept.c[name] for name in names))


def _select_negated(family: Family, returning: Family) -> Select[Any]:
    agent = returning.rows.c[family.agent]
    negated = (-value for value in returning.aggregates.values())
    is_there = exists().where(family.rows.c.id == returning.rows.c.id)
    return (
        select(BEGINS_AT, agent, *negated)
        .select_from(rows_of_hours(returning))
        .where(~is_there)
        .group_by(BEGINS_AT, agent)
    )


async def _add_up_totals(store: Store, family: Family, hours: Sequence[datetime]) -> None:
    """Add up what is left of agents; the percentiles of the rows are not known any more."""
    await forget(store, family, hours, is_day=False, is_kept=True, is_total=True)
    rollup = family.rollup
    sums = sums_of(family, rollup)
    kind = _kind(rollup.c.begins_at, is_total=True)
    found = select(*kind.values(), *sums.values()).where(
        rollup.c.begins_at == func.any(TIMES),
        rollup.c.is_day.is_(False),
        rollup.c.is_kept.is_(True),
    )
    statement = insert(rollup).from_select([*kind, *sums], found.group_by(rollup.c.begins_at))
    await with_times(store, statement, hours)


def _kind(begins_at: ColumnElement[Any], *, is_total: bool) -> dict[str, ColumnElement[Any]]:
    kind = kind_of(is_day=False, is_total=is_total, is_kept=True)
    return kind | {"begins_at": begins_at}


def _without_zeros(
    family: Family, sums: dict[str, ColumnElement[Any]]
) -> dict[str, ColumnElement[Any]]:
    # A histogram without rows is none.
    empty = {
        measure.histogram: func.nullif(sums[measure.histogram], literal(0))
        for measure in family.measures
    }
    return sums | empty
