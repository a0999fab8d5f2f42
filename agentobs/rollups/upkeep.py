"""Bring rollups up to date: mark what changed unseen, close hours, fold all that can be."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from agentobs.rollups.closing import close_hours, closing_instant
from agentobs.rollups.folding import (
    busy_hours,
    fold_closed,
    fold_marked,
    folded_instant,
    is_closing,
)
from agentobs.rollups.partitions import has_changed, note_partitions, unwatched_partitions
from agentobs.rollups.tables import MARKS, PARTITIONS

if TYPE_CHECKING:
    from datetime import datetime

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store

_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Backlog:
    """What is to be folded of a table.

    `closed_to` is the end of the hours that have closed and have rows, None where there are none;
    `marked` are folded hours that changed since; `has_changed_partitions` says that one came, went
    or was rewritten. `unwatched` partitions lack a trigger, and are read row by row.
    """

    closed_to: datetime | None = None
    marked: int = 0
    has_changed_partitions: bool = False
    unwatched: int = 0

    def __bool__(self) -> bool:
        return bool(self.closed_to or self.marked or self.has_changed_partitions)


async def backlog_of(store: Store, family: Family, now: datetime) -> Backlog:
    """Return what `bring_up_to_date` would do."""
    async with store.connection.begin():
        folded_to = await folded_instant(store, family)
        target = await closing_instant(store, now)
        has_rows = await busy_hours(store, family, folded_to, target, limit=1)
        marked = select(func.count(MARKS.c.hour.distinct())).where(
            MARKS.c.table_name == family.name, MARKS.c.hour < folded_to
        )
        return Backlog(
            closed_to=target if has_rows else None,
            marked=(await store.execute(marked)).scalar_one(),
            has_changed_partitions=await has_changed(store, family, folded_to),
            unwatched=await unwatched_partitions(store, family),
        )


async def bring_up_to_date(
    store: Store, family: Family, now: datetime, *, patience_seconds: float
) -> bool:
    """Fold all that can be folded; return whether no closed hour is left.

    Waits for `patience_seconds` for transactions that may have written to an hour before it
    closed; what they keep back is folded by a later call. Raises ConflictError where another one
    folds.
    """
    await note_partitions(store, family)
    # What an earlier call closed comes first: its writers may have ended, and new ones begun.
    await _fold_all(store, family)
    await close_hours(store, now)
    await _fold_all(store, family)
    deadline = time.monotonic() + patience_seconds
    while await is_closing(store, family) and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE_SECONDS)
        await _fold_all(store, family)
    return not await is_closing(store, family)


async def _fold_all(store: Store, family: Family) -> None:
    for step in (fold_marked, fold_closed):
        while await step(store, family):
            pass


async def forget_partitions(store: Store, family: Family) -> None:
    """Forget what the hours of a table were folded from, so that all are read and folded anew."""
    async with store.connection.begin():
        await store.lock()
        await store.execute(delete(PARTITIONS).where(PARTITIONS.c.table_name == family.name))
