"""What waits for the rows of other processes: runs for their parents, changes for their rows."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentobs.errors import (
    ConnectionFailedError,
    DatabaseError,
    ReadOnlyError,
    StatementTimeoutError,
)
from agentobs.recorder.writing.held import Held

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from uuid import UUID

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.writing.batch import Batch
    from agentobs.recorder.writing.delivery import Delivery
    from agentobs.settings import RecorderSettings

logger = logging.getLogger("agentobs.recorder")


@dataclass(slots=True)
class GivenUp:
    """What waited in vain: how many runs lost their parent, and the changes without a row."""

    orphaned: int = 0
    unmatched: list[Entry] = field(default_factory=list)
    reason: str = "no such decision was ever stored"


class Others:
    """Holds what waits, and lets it go into a batch in its time."""

    def __init__(self, settings: RecorderSettings, delivery: Delivery) -> None:
        bounds = (settings.buffer_rows, settings.buffer_bytes // 2)
        self.children = Held(settings.parent_wait, *bounds)
        self.changes = Held(settings.outcome_wait, *bounds)
        self._delivery = delivery
        self._is_blind = False

    def __bool__(self) -> bool:
        return bool(self.children or self.changes)

    def __iter__(self) -> Iterator[Entry]:
        yield from self.children
        yield from self.changes

    async def release(self, batch: Batch, *, is_last: bool) -> GivenUp:
        """Let into the batch what waited for rows that are there now, or waited long enough.

        Where `is_last`, nothing waits any longer.
        """
        given_up = GivenUp()
        if self.children:
            await self._release_children(batch)
            given_up.orphaned = self._give_up_parents(batch, is_last=is_last)
        if self.changes:
            await self._release_changes(batch)
            # Bounded, as everything that waits in memory.
            if self._is_blind:
                given_up.reason = "the decision can't be looked for: grant SELECT on its table"
            given_up.unmatched = [*self.changes.expired(at_once=is_last), *self.changes.surplus()]
        return given_up

    async def _release_children(self, batch: Batch) -> None:
        stored = await self._look(self._delivery.stored_events, self.children.awaited)
        for entry in self.children.release(stored):
            batch.events[entry.id] = entry

    async def _release_changes(self, batch: Batch) -> None:
        stored = await self._look(self._delivery.stored_metrics, self.changes.awaited)
        for entry in self.changes.release(stored):
            batch.add_update(entry)
        for entry in self.changes:
            # Others may change the row before it does. Of one that is only locked now, it may be
            # the newest change, and must not give way.
            entry.has_waited = True

    def _give_up_parents(self, batch: Batch, *, is_last: bool) -> int:
        gone = [*self.children.expired(at_once=is_last), *self.children.surplus()]
        for entry in gone:
            entry.values["parent_event_id"] = None
            batch.events[entry.id] = entry
            for child in self.children.release([entry.id]):
                batch.events[child.id] = child
        return len(gone)

    async def _look(
        self, ask: Callable[[set[UUID]], Awaitable[set[UUID]]], keys: set[UUID]
    ) -> set[UUID]:
        """Return which rows are there: none where we may not look, for all else goes on."""
        try:
            stored = await ask(keys)
        except DatabaseError as error:
            if is_outage(error):
                raise
            if isinstance(error, StatementTimeoutError):
                # It has given its connection up.
                await self._delivery.drop_connection()
            if not self._is_blind:
                logger.warning("what waits for rows of others can't look for them: %s", error)
            self._is_blind = True
            return set()
        self._is_blind = False
        return stored


def is_outage(error: DatabaseError) -> bool:
    """Tell whether nothing else would be taken either, as long as it lasts."""
    if isinstance(error, StatementTimeoutError):
        # Of this statement, though its SQLSTATE is of the operator's class.
        return False
    # Of the server: too little of something, an operator's doing, a fault of the system.
    is_of_server = (error.sqlstate or "")[:2] in {"53", "57", "58"}
    return is_of_server or isinstance(error, ConnectionFailedError | ReadOnlyError)


def is_overdue(entry: Entry, wait: float) -> bool:
    """Tell whether a change was refused for so many seconds; the first refusal begins them."""
    now = time.monotonic()
    if entry.refused_until is None:
        # However long it waited for its row: what is in the way now may be gone soon.
        entry.refused_until = now + wait
    return now >= entry.refused_until
