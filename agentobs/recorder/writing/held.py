"""What waits, for a bounded time, for a row of another process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentobs.recorder.entries import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    awaited: UUID

    @property
    def until(self) -> float:
        """The end of its time: what comes back has no second one."""
        return self.entry.held_until or 0.0


class Held:
    """Entries that wait for the row `awaited`: a parent's, or the one that they change.

    A row whose parent waits here waits with it, as long as that one does. The bounds are of
    entries and of their bytes; what is beyond them is `surplus`.
    """

    def __init__(self, wait: float, most_rows: int, most_bytes: int) -> None:
        self.bytes = 0
        self._wait = wait
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._waiting: dict[tuple[str, UUID], _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Entry]:
        return (waiting.entry for waiting in self._waiting.values())

    @property
    def is_full(self) -> bool:
        """Whether more waits than may."""
        return len(self._waiting) > self._most_rows or self.bytes > self._most_bytes

    def get(self, kind: str, key: UUID) -> Entry | None:
        """Return the entry that waits, of a kind and for a row."""
        found = self._waiting.get((kind, key))
        return found.entry if found else None

    def hold(self, entry: Entry, awaited: UUID) -> None:
        """Let an entry wait; one of its kind and row that waits already takes it in."""
        if (found := self.get(entry.kind, entry.id)) is not None:
            if found is not entry:
                self.merge(found, entry)
            return
        self.bytes += entry.size
        if entry.held_until is None:
            above = self.get(entry.kind, awaited)
            entry.held_until = above.held_until if above else time.monotonic() + self._wait
        self._waiting[entry.kind, entry.id] = _Waiting(entry, awaited)

    def merge(self, found: Entry, entry: Entry) -> None:
        """Let one that waits take in what another entry knows of its row."""
        found.merge(entry)
        found.size += entry.size
        self.bytes += entry.size

    @property
    def awaited(self) -> set[UUID]:
        """The rows that are waited for and do not wait themselves."""
        return {waiting.awaited for waiting in self._waiting.values()} - self._waiting_rows()

    def release(self, stored: Iterable[UUID]) -> list[Entry]:
        """Give back what waited for rows that are stored now, with all that waited for those."""
        found, come = list[Entry](), set(stored)
        # A parent's key need not come first: a host may give any start.
        while keys := [key for key, each in self._waiting.items() if each.awaited in come]:
            more = [self._pop(key) for key in keys]
            come = {entry.id for entry in more}
            found += more
        return found

    def expired(self, *, at_once: bool = False) -> list[Entry]:
        """Give back what waited for its time in vain: the first of each line, not those behind."""
        now, own = time.monotonic(), self._waiting_rows()
        return [
            self._pop(key)
            for key, waiting in list(self._waiting.items())
            if (at_once or waiting.until <= now) and waiting.awaited not in own
        ]

    def surplus(self) -> list[Entry]:
        """Give back the oldest of those that are too many, the first of each line."""
        found, own = list[Entry](), self._waiting_rows()
        for key, waiting in list(self._waiting.items()):
            if not self.is_full:
                break
            if waiting.awaited not in own:
                found.append(self._pop(key))
        return found

    def _pop(self, key: tuple[str, UUID]) -> Entry:
        entry = self._waiting.pop(key).entry
        self.bytes -= entry.size
        return entry

    def _waiting_rows(self) -> set[UUID]:
        return {key for kind, key in self._waiting if kind == Kind.TRANSFORMATION}
