"""The runs of this process that have begun and not ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from uuid import UUID

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.spool.spool import Position


class OpenRuns:
    """The rows of open runs, to be written before the end where that takes long.

    Those come first that began first. The lock is the buffer's. The length is that of all that go
    on, whether or not their start is written.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._starts: dict[UUID, tuple[float, Entry]] = {}
        self._open: set[UUID] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, start: Entry, began: float) -> None:
        """Note a run that began now, by the monotonic clock."""
        with self._lock:
            self._starts[start.id] = (began, start)
            self._open.add(start.id)

    def remove(self, key: UUID) -> None:
        """Forget a run that has ended."""
        with self._lock:
            self._open.discard(key)
            self._starts.pop(key, None)

    def settle(self, key: UUID) -> None:
        """Forget the start of a run: it is written, or never will be."""
        with self._lock:
            self._starts.pop(key, None)

    def hurry(self, key: UUID) -> None:
        """Have the row of a run written soon, for somebody elsewhere will name it."""
        with self._lock:
            if (found := self._starts.get(key)) is not None:
                self._starts[key] = (-math.inf, found[1])

    def take(self, key: UUID) -> Entry | None:
        """Return the row of a run, as `get` does, to be written now."""
        with self._lock:
            return _made(self.get(key))

    def get(self, key: UUID) -> Entry | None:
        """Return the row of a run that goes on and is not written yet."""
        found = self._starts.get(key)
        return found[1] if found else None

    def begun_before(self, instant: float) -> list[Entry]:
        """Return the rows of the runs that began before an instant of the monotonic clock.

        They are to be written now.
        """
        with self._lock:
            return [_made(start) for began, start in self._starts.values() if began < instant]

    def first_position(self) -> Position | None:
        """Return where the oldest of the starts stands in the spool; with the lock held."""
        positions = (start.position for _, start in self._starts.values())
        return min((position for position in positions if position), default=None)


_Start = TypeVar("_Start", "Entry", "Entry | None")


def _made(start: _Start) -> _Start:
    # By its values a start tells that it is on its way: its end must not be dropped any more.
    if start is not None:
        _ = start.values
    return start
