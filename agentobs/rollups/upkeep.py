"""Bring rollups up to date: mark what changed unseen, close hours, fold all that can be."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from agentobs.rollups.closing import close_hours, closing_instant, writers_left
from agentobs.rollups.folding import (
    first_busy_hour,
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

    `closed_to` is the end of the hours that have closed and have rows, and `closed_from` the first
    of these; None where there are none. `marked` are folded hours that changed since;
    `has_changed_partitions` says that one came, went or was rewritten. `unwatched` partitions lack
    a trigger, and are read row by row.
    """

    closed_to: datetime | None = None
    marked: int = 0
    has_changed_partitions: bool = False
    unwatched: int = 0
    closed_from: datetime | None = None

    def __bool__(self) -> bool:
        return bool(self.closed_to or self.marked or self.has_changed_partitions)


async def backlog_of(store: Store, family: Family, now: datetime) -> Backlog:
    """Return what `bring_up_to_date` would do."""
    async with store.connection.begin():
        folded_to = await folded_instant(store, family)
        target = await closing_instant(store, now)
        first = await first_busy_hour(store, family, folded_to, target)
        marked = select(func.count(MARKS.c.hour.distinct())).where(
            MARKS.c.table_name == family.name, MARKS.c.hour < folded_to
        )
        return Backlog(
            closed_to=target if first else None,
            closed_from=first,
            marked=(await store.execute(marked)).scalar_one(),
            has_changed_partitions=await has_changed(store, family, folded_to),
            unwatched=await unwatched_partitions(store, family),
        )


async def bring_up_to_date(
    store: Store, family: Family, now: datetime, *, patience_seconds: float
) -> list[str]:
    """Fold all that can be folded; return who keeps the rest back, described.

    These are transactions that were open when hours closed, and may have written to them. They are
    waited for as long as `patience_seconds`; a later call folds what they have kept back. Raises
    ConflictError where another one folds.
    """
    async with store.alone():
        await note_partitions(store, family)
        await fold_marked(store, family)
        # What an earlier call closed comes first: its writers may have ended, and new ones begun.
        await _fold_all_closed(store, family)
        await close_hours(store, family, now)
        return await _fold_patiently(store, family, time.monotonic() + patience_seconds)


async def _fold_patiently(store: Store, family: Family, deadline: float) -> list[str]:
    while True:
        await _fold_all_closed(store, family)
        if not await is_closing(store, family):
            return []
        left = await writers_left(store, family)
        if left and time.monotonic() >= deadline:
            return left
        await asyncio.sleep(_PAUSE_SECONDS)


async def _fold_all_closed(store: Store, family: Family) -> None:
    while await fold_closed(store, family):
        pass


async def forget_partitions(store: Store, family: Family) -> None:
    """Forget what the hours of a table were folded from, so that all are read and folded anew."""
    async with store.alone(), store.connection.begin():
        await store.execute(delete(PARTITIONS).where(PARTITIONS.c.table_name == family.name))
