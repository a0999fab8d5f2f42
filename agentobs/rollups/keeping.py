"""What becomes of a month's rollups when its rows go, or move to another table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, exists, select, update

from agentobs.keys import uuid7_floor
from agentobs.rollups.folding import folded_instant, marked_hours
from agentobs.rollups.partitions import note_attached
from agentobs.rollups.tables import ATTACHED, IS_AS_NOTED, PARTITIONS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Table

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store


async def keep_hours(store: Store, family: Family, since: datetime, until: datetime) -> bool:
    """Keep the rollups of hours whose partition goes later in this transaction; False if they lag.

    They begin and end with the partition's keys. This takes its time, and no lock that others feel:
    once writers are kept away, `are_still_kept` tells whether one came between. What is kept is
    added to whatever is written to these hours later. Raises ConflictError where another one folds.
    """
    await store.lock()
    folded_to = await folded_instant(store, family)
    if folded_to < until or not await is_noted(store, family, since, until):
        return False
    if await marked_hours(store, family, since=since, until=until):
        return False
    rollup = family.rollup
    within = and_(rollup.c.begins_at >= since, rollup.c.begins_at < until)
    kept = update(rollup).where(within, rollup.c.is_kept.is_(False)).values(is_kept=True)
    await store.execute(kept)
    return True


async def are_still_kept(store: Store, family: Family, since: datetime, until: datetime) -> bool:
    """Tell whether nothing has changed since `keep_hours`, and forget the partition if so.

    The caller holds a lock that keeps all writers away from it.
    """
    if not await is_noted(store, family, since, until):
        return False
    if await marked_hours(store, family, since=since, until=until):
        return False
    await store.execute(delete(PARTITIONS).where(_is_of(PARTITIONS, family, since, until)))
    return True


async def note_rewritten(store: Store, family: Family, since: datetime, until: datetime) -> None:
    """Note the partition that takes the place of one that was noted, with the same rows.

    What changed in the former one before this transaction took it has marked its hours.
    """
    await store.execute(delete(PARTITIONS).where(_is_of(PARTITIONS, family, since, until)))
    await note_attached(store, _is_of(ATTACHED, family, since, until))


async def is_noted(store: Store, family: Family, since: datetime, until: datetime) -> bool:
    """Tell whether the hours of a partition were folded from it as it is."""
    found = exists().where(IS_AS_NOTED, _is_of(PARTITIONS, family, since, until))
    return bool((await store.execute(select(found))).scalar_one())


def _is_of(table: Table, family: Family, since: datetime, until: datetime) -> ColumnElement[bool]:
    return and_(
        table.c.table_name == family.name,
        table.c.lower_id == uuid7_floor(since),
        table.c.upper_id == uuid7_floor(until),
    )
