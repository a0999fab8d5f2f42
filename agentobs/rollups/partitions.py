"""Partitions come, go and are rewritten without a row that marks its hour: they are compared.

What each was when its hours were folded is noted. Where another one is attached, its hours are
marked, and it is noted as it is by then: both in one snapshot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, delete, exists, insert, select, union

from agentobs.keys import EPOCH
from agentobs.rollups.folding import busy_hours, folded_instant
from agentobs.rollups.hours import HOUR, hour_of
from agentobs.rollups.tables import ATTACHED, IS_AS_NOTED, MARKS, PARTITIONS

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store


# There are keys of instants beyond those of Python.
_NEVER = EPOCH + timedelta(days=365 * 8000)


class Range(NamedTuple):
    """Keys, from the first to below the second."""

    lower_id: UUID
    upper_id: UUID


async def note_partitions(store: Store, family: Family) -> None:
    """Mark the folded hours of partitions that have changed, and note what they are now.

    A partition without its triggers is not noted: it is read row by row until it has them.
    """
    async with store.snapshot():
        folded_to = await folded_instant(store, family)
        changed = await _changed_ranges(store, family)
        hours = {hour for keys in changed for hour in await _hours(store, family, keys, folded_to)}
        if hours:
            marks = [{"table_name": family.name, "hour": hour} for hour in sorted(hours)]
            await store.execute_many(insert(MARKS), marks)
        await _note(store, family)


async def has_changed(store: Store, family: Family, until: datetime) -> bool:
    """Tell whether a partition with hours before `until` has changed since it was noted."""
    changed = await _changed_ranges(store, family)
    return any(_first_hour(keys) < until for keys in changed)


async def unwatched_partitions(store: Store, family: Family) -> int:
    """Return how many partitions lack a trigger, so that their rows mark nothing."""
    found = select(ATTACHED.c.partition).where(ATTACHED.c.table_name == family.name)
    return len((await store.execute(found.where(ATTACHED.c.print.is_(None)))).all())


def _changed() -> ColumnElement[bool]:
    return and_(ATTACHED.c.print.is_not(None), ~exists().where(IS_AS_NOTED).correlate(ATTACHED))


def _gone() -> ColumnElement[bool]:
    return ~exists().where(IS_AS_NOTED).correlate(PARTITIONS)


async def _changed_ranges(store: Store, family: Family) -> list[Range]:
    changed = select(ATTACHED.c.lower_id, ATTACHED.c.upper_id)
    gone = select(PARTITIONS.c.lower_id, PARTITIONS.c.upper_id)
    found = union(
        changed.where(ATTACHED.c.table_name == family.name, _changed()),
        gone.where(PARTITIONS.c.table_name == family.name, _gone()),
    )
    return [Range(row.lower_id, row.upper_id) for row in await store.execute(found)]


async def _hours(store: Store, family: Family, keys: Range, folded_to: datetime) -> set[datetime]:
    """Return the folded hours of a range that have rows, or had some when they were folded."""
    first = _first_hour(keys)
    # A host's own partition may end within an hour.
    end = min(_hour_after(keys.upper_id), folded_to)
    if first >= end:
        return set()
    rollup = family.rollup
    folded = select(rollup.c.begins_at).distinct()
    is_ordinary = and_(rollup.c.is_day.is_(False), rollup.c.is_kept.is_(False))
    within = folded.where(is_ordinary, rollup.c.begins_at >= first, rollup.c.begins_at < end)
    known = (await store.execute(within)).scalars()
    return {*known, *await busy_hours(store, family, first, end)}


def _first_hour(keys: Range) -> datetime:
    # The least keys of all lie before the first instant that a key holds.
    try:
        return max(hour_of(keys.lower_id), EPOCH)
    except OverflowError:
        return _NEVER


def _hour_after(key: UUID) -> datetime:
    try:
        return hour_of(key) + HOUR
    except OverflowError:
        return _NEVER


async def _note(store: Store, family: Family) -> None:
    await store.execute(delete(PARTITIONS).where(PARTITIONS.c.table_name == family.name, _gone()))
    await note_attached(store, and_(ATTACHED.c.table_name == family.name, _changed()))


async def note_attached(store: Store, condition: ColumnElement[bool]) -> None:
    """Note partitions as they are, but for those that lack a trigger."""
    names = [column.name for column in PARTITIONS.c]
    found = select(*(ATTACHED.c[name] for name in names))
    present = found.where(condition, ATTACHED.c.print.is_not(None))
    await store.execute(insert(PARTITIONS).from_select(names, present))
