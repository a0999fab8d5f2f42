"""Fold closed hours: add their rows up, and put the sums in the place of what stood there.

Each step is a transaction of one snapshot: what it reads of rows, marks and partitions is of one
moment, and it takes only those marks away that it has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, literal, null, select, true, update

from agentobs.keys import EPOCH, uuid7_floor
from agentobs.rollups.adding import TIMES, add_up_days, add_up_hours, with_times
from agentobs.rollups.closing import are_writers_gone
from agentobs.rollups.hours import DAY, HOUR, ONE_HOUR, floor_to, hour_at, hour_of, key_at
from agentobs.rollups.tables import MARKS, STATE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement, Select

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store

HOURS_A_STEP = 100
"""So many hours are folded in one transaction: a run that is killed has little to do again."""


async def fold_marked(store: Store, family: Family) -> None:
    """Fold the hours anew that are marked by now; who marks more meanwhile keeps nobody busy."""
    async with store.snapshot():
        hours = await marked_hours(store, family, until=await folded_instant(store, family))
    for first in range(0, len(hours), HOURS_A_STEP):
        async with store.snapshot():
            folded_to = await folded_instant(store, family)
            await fold(store, family, hours[first : first + HOURS_A_STEP], folded_to)


async def fold_closed(store: Store, family: Family) -> int:
    """Fold some of the hours that have closed; return how many, 0 where none are left.

    0, too, where transactions are open that may have written to them: it is still closing then.
    """
    async with store.snapshot():
        folded_to, closing_to = await _state(store, family)
        if closing_to is None or not await are_writers_gone(store, family):
            return 0
        hours = await busy_hours(store, family, folded_to, closing_to, limit=HOURS_A_STEP)
        until = hours[-1] + HOUR if len(hours) == HOURS_A_STEP else closing_to
        await fold(store, family, hours, until, begun=folded_to)
        await _forget_marks(store, family, since=folded_to, until=until)
        await _advance(store, family, until, is_done=until == closing_to)
        return len(hours)


async def fold(
    store: Store,
    family: Family,
    hours: Sequence[datetime],
    folded_to: datetime,
    *,
    begun: datetime | None = None,
) -> None:
    """Add up the rows of some hours, and the hours of their days that lie before `folded_to`.

    `begun` is an instant whose day may have been folded in part before.
    """
    await add_up_hours(store, family, hours)
    touched = {floor_to(hour, DAY) for hour in (*hours, *([begun] if begun else []))}
    days = sorted(day for day in touched if day + DAY <= folded_to)
    await add_up_days(store, family, days)
    marked = delete(MARKS).where(MARKS.c.table_name == family.name)
    await with_times(store, marked.where(MARKS.c.hour == func.any(TIMES)), hours)


async def is_closing(store: Store, family: Family) -> bool:
    """Tell whether hours have closed that are not folded."""
    async with store.connection.begin():
        return (await _state(store, family))[1] is not None


async def folded_instant(store: Store, family: Family) -> datetime:
    """Return the instant before which all is folded."""
    return (await _state(store, family))[0]


async def marked_hours(
    store: Store,
    family: Family,
    *,
    until: datetime,
    since: datetime = EPOCH,
) -> list[datetime]:
    """Return the hours that are marked, oldest first."""
    marked = select(MARKS.c.hour).distinct().order_by(MARKS.c.hour)
    own = marked.where(MARKS.c.table_name == family.name)
    found = own.where(MARKS.c.hour >= since, MARKS.c.hour < until)
    return list((await store.execute(found)).scalars())


async def busy_hours(
    store: Store, family: Family, since: datetime, until: datetime, *, limit: int | None = None
) -> list[datetime]:
    """Return the hours that have rows, oldest first.

    From each to the next one it is a jump over the index: empty years between them cost nothing.
    """
    lower, upper = (literal(uuid7_floor(instant)) for instant in (since, until))
    first = _least_key(family, lower, upper).subquery()
    busy = select(hour_at(first.c.id).label("hour")).cte("busy", recursive=True)
    behind = key_at(busy.c.hour + ONE_HOUR)
    following = _least_key(family, behind, upper).correlate(busy).lateral()
    busy = busy.union_all(select(hour_at(following.c.id)).select_from(busy.join(following, true())))
    # The limit ends the recursion, too: no hour is looked for that is not asked for.
    return list((await store.execute(select(busy.c.hour).limit(limit))).scalars())


async def first_busy_hour(
    store: Store, family: Family, since: datetime, until: datetime
) -> datetime | None:
    """Return the first hour that has rows; only partitions of that time are looked at."""
    lower, upper = (literal(uuid7_floor(instant)) for instant in (since, until))
    key = (await store.execute(_least_key(family, lower, upper))).scalar_one_or_none()
    return None if key is None else hour_of(key)


def _least_key(
    family: Family, lower: ColumnElement[Any], upper: ColumnElement[Any]
) -> Select[tuple[UUID]]:
    key = family.rows.c.id
    return select(key).where(key >= lower, key < upper).order_by(key).limit(1)


async def _state(store: Store, family: Family) -> tuple[datetime, datetime | None]:
    columns = select(STATE.c.folded_to, STATE.c.closing_to)
    row = (await store.execute(columns.where(STATE.c.table_name == family.name))).one()
    return row.folded_to, row.closing_to


async def _advance(store: Store, family: Family, until: datetime, *, is_done: bool) -> None:
    values: dict[str, Any] = {"folded_to": until}
    if is_done:
        values |= {"closing_to": null(), "closing": null()}
    await store.execute(update(STATE).where(STATE.c.table_name == family.name).values(values))


async def _forget_marks(store: Store, family: Family, *, since: datetime, until: datetime) -> None:
    own = delete(MARKS).where(MARKS.c.table_name == family.name)
    await store.execute(own.where(MARKS.c.hour >= since, MARKS.c.hour < until))
