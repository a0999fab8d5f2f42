"""Spools of processes that died: taken over, and brought to the database."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agentobs.recorder.spool.spool import Position, Spool, take_over

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from uuid import UUID

    from agentobs.recorder.buffer import Buffer
    from agentobs.recorder.entries import Entry

logger = logging.getLogger("agentobs.recorder")

# How often a process looks for spools that others left.
_LOOK_EVERY = 30.0
_READ_BYTES = 16 * 2**20


class Replay:
    """The spools that this process has taken over, one after the other.

    Of a run that had begun and not ended, the start comes last, when its end was not found.
    """

    def __init__(self, root: Path, target: str, buffer: Buffer) -> None:
        self.starts: dict[UUID, Entry] = {}
        # Whether it has looked, and found none.
        self.is_idle = False
        self._root, self._target, self._buffer = root, target, buffer
        self._spool: Spool | None = None
        self._next: Position | None = None
        self._look_at = 0.0

    @property
    def spool(self) -> Spool | None:
        """The spool that is being replayed."""
        return self._spool

    @property
    def is_at_end(self) -> bool:
        """Whether all of the spool has been read."""
        return self._spool is not None and self._next is None

    def take(self, limit: int) -> list[Entry]:
        """Return the next records of a spool that was left, where there is one."""
        spool = self._spool or self._find()
        if spool is None or self._next is None:
            return []
        frames = spool.read(self._next, limit, _READ_BYTES)
        self._next = frames[-1].end if frames else None
        entries = self._buffer.decoded(frames, spool)
        for entry in entries:
            entry.is_replayed = True
        return entries

    def unended(self) -> list[Entry]:
        """Return the starts that no end followed, once all was read."""
        starts, self.starts = list(self.starts.values()), {}
        return starts

    def settle(self, open_entries: Iterable[Entry]) -> None:
        """Note how far the spool has been replayed; leave it when there is nothing open."""
        if self._spool is None:
            return
        pending = (*open_entries, *self.starts.values())
        positions = [e.position for e in pending if e.spool is self._spool and e.position]
        if positions or self._next is not None:
            self._spool.settle(min((*positions, self._next or self._spool.end)))
            return
        self._spool.settle(self._spool.end)
        self.close()
        self._look_at = 0.0

    def close(self) -> None:
        """Leave the spool, with what is open in it, to another process."""
        spool, self._spool = self._spool, None
        if spool is not None:
            with self._buffer.lock:
                self._buffer.counters.add("damaged", spool.damaged)
            spool.close()

    def _find(self) -> Spool | None:
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + _LOOK_EVERY
        self._spool = next(take_over(self._root, self._target), None)
        if self._spool is not None:
            self._next = self._spool.settled
            logger.info("takes over what a process left: %s", self._spool.path)
        self.is_idle = self._spool is None
        return self._spool
