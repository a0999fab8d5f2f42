"""The bounded buffer between the host's threads and the writer.

What is delivered how when there is no room is decided here. With a spool, every record is in the
file before it is in memory, and what finds no room in memory stays in the file alone: from then on
the writer reads from there, until it has caught up. So the order of records is kept.
"""

from __future__ import annotations

import logging
import threading
from itertools import islice
from typing import TYPE_CHECKING

from agentobs.errors import InvalidValueError, RecorderClosedError, SpoolError
from agentobs.recorder.entries import Entry, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from uuid import UUID

    from agentobs.recorder.spool.spool import Frame, Position, Spool
    from agentobs.recorder.statistics import Counters
    from agentobs.settings import RecorderSettings

logger = logging.getLogger("agentobs.recorder")

# What is read from the spool at once.
_READ_BYTES = 16 * 2**20
_ROWS = frozenset({Kind.DECISION, Kind.TRANSFORMATION})


class Buffer:
    """Records in the order in which they were accepted.

    Every method may be called from any thread. `wake` is called where the writer should look, with
    the lock held: it must not block.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        counters: Counters,
        spool: Spool | None,
        wake: Callable[[], None],
    ) -> None:
        self.lock = counters.lock
        self.is_open = True
        self.bytes = 0
        self.sequence = 0
        # The last record that is in memory only, though there is a spool.
        self.last_unspooled = 0
        self.spool = spool
        self._room = threading.Condition(self.lock)
        self._settings = settings
        # Asked for with each record, which attributes of a model are too slow for.
        self._most_rows, self._most_bytes = settings.buffer_rows, settings.buffer_bytes
        self._batch_rows, self._batch_bytes = settings.flush_rows, settings.buffer_bytes // 2
        self._accepted = counters.by_kind["accepted"]
        self.counters = counters
        self._wake = wake
        # By the integers of their ids: the hash of a UUID is a function in Python.
        self._entries: dict[Hashable, Entry] = {}
        # Where the records begin that are in the spool alone; None where memory has them all.
        self._behind: Position | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_ready(self) -> bool:
        """Whether there is a batch to be had without waiting for more."""
        return (
            len(self._entries) >= self._batch_rows
            or self.bytes >= self._batch_bytes
            or self._behind is not None
        )

    @property
    def is_behind(self) -> bool:
        """Whether there are records in the spool alone."""
        return self._behind is not None

    @property
    def is_empty(self) -> bool:
        """Whether the writer has taken everything."""
        return not self._entries and self._behind is None

    def put(self, entry: Entry, *, must_fit: bool = False) -> bool:
        """Take an entry, or drop and count it; an update of a row that is here goes into it.

        Raises RecorderClosedError where nobody would write it any more.
        """
        if self.spool is not None:
            return self._put_spooled(entry, self.spool)
        with self.lock:
            self._require_open()
            if not (self._has_room(entry) or must_fit) and not self._wait_for_room(entry):
                return self._drop(entry)
            self._accept(entry)
            return True

    def oldest(self, limit: int) -> list[Entry]:
        """Return the oldest entries in memory, which stay here."""
        with self.lock:
            return list(islice(self._entries.values(), limit))

    def _drop(self, entry: Entry) -> bool:
        if not any(self.counters.by_kind["dropped"].values()):
            logger.warning("the buffer is full: records are dropped, and counted")
        self.counters.count("dropped", entry.kind)
        return False

    def pull(self, key: UUID) -> Entry | None:
        """Take the row of one key out of its turn, where it is here."""
        with self.lock:
            return self._remove(key.int)

    def take(self, limit: int) -> list[Entry]:
        """Take the oldest entries, from memory or else from the spool; the writer calls it."""
        with self.lock:
            is_all = len(self._entries) <= limit
            taken = self.take_all() if is_all else self._take_first(limit)
            self._room.notify_all()
            behind = self._behind
        # What was taken must not go with an error of the disk.
        return taken if taken or behind is None else self._read(behind, limit)

    def _take_first(self, limit: int) -> list[Entry]:
        taken = list(islice(self._entries.values(), limit))
        for key in list(islice(self._entries, limit)):
            del self._entries[key]
        self.bytes -= sum(entry.size for entry in taken)
        return taken

    def take_all(self) -> list[Entry]:
        """Take what is in memory, when the writer has ended."""
        with self.lock:
            entries, self._entries, self.bytes = list(self._entries.values()), {}, 0
        return entries

    def wake_all(self) -> None:
        """Let those go who wait for room, for there will be none."""
        with self.lock:
            self.is_open = False
            self._room.notify_all()

    def first_position(self) -> Position | None:
        """Return where the oldest entry that is here stands in the spool; with the lock held."""
        # They are in its order, but for those that could not be written to it.
        first = next((e.position for e in self._entries.values() if e.position), None)
        return first or self._behind

    def spool_start(self, start: Entry) -> None:
        """Note the start of a run in the spool, where there is one, but not for the writer."""
        if self.spool is not None:
            payload = start.encode()
            if start.fault is None:
                with self.lock:
                    self._append(start, payload, self.spool)

    def first_sequence(self) -> int:
        """Return the number of the oldest entry that is here, or the next; with the lock held."""
        return next((entry.sequence for entry in self._entries.values()), self.sequence + 1)

    def _put_spooled(self, entry: Entry, spool: Spool) -> bool:
        payload = entry.encode()
        if entry.fault is not None:
            raise InvalidValueError(str(entry.kind), entry.fault)
        entry.size += len(payload)
        with self.lock:
            self._require_open()
            is_spooled = self._append(entry, payload, spool)
            if self._behind is None and self._has_room(entry):
                self._accept(entry)
                if not is_spooled:
                    self.last_unspooled = self.sequence
            elif is_spooled:
                self._behind = self._behind or entry.position
                self._count_accepted(entry)
                self._wake()
            else:
                return self._drop(entry)
        return True

    def _require_open(self) -> None:
        if not self.is_open:
            raise RecorderClosedError("the recorder was closed while the record was made")

    def _append(self, entry: Entry, payload: bytes, spool: Spool) -> bool:
        try:
            entry.position = spool.append(payload)
            entry.spool = spool
        except SpoolError as error:
            if not self.counters.single["unspooled"]:
                logger.warning("records are kept in memory only: %s", error)
            self.counters.add("unspooled")
            return False
        return True

    def _has_room(self, entry: Entry) -> bool:
        entries = self._entries
        has_place = self.bytes + entry.size <= self._most_bytes or not entries
        return len(entries) < self._most_rows and has_place

    def _wait_for_room(self, entry: Entry) -> bool:
        if self._settings.delivery != "block":
            return False
        self._wake()
        limit = self._settings.block_timeout or None
        self._room.wait_for(lambda: self._has_room(entry) or not self.is_open, limit)
        return self.is_open and self._has_room(entry)

    def _accept(self, entry: Entry) -> None:
        self._count_accepted(entry)
        if entry.kind in _ROWS:
            self._entries[entry.id.int] = entry
        elif self._merge(entry):
            return
        else:
            self._entries[entry.kind, entry.id.int] = entry
        self.bytes += entry.size
        if self.is_ready:
            self._wake()

    def _count_accepted(self, entry: Entry) -> None:
        self.sequence += 1
        entry.sequence = self.sequence
        if not entry.is_start:
            self._accepted[entry.kind] += 1
        if entry.changes or entry.cuts:
            self.counters.note_changes(entry)

    def _merge(self, entry: Entry) -> bool:
        """Let an update go into the row that it is for, or into an earlier one: the last wins."""
        row = self._entries.get(entry.id.int)
        is_decision = row is not None and row.kind is Kind.DECISION
        into = row if is_decision else self._entries.get((entry.kind, entry.id.int))
        if into is None:
            return False
        into.merge(entry)
        into.size += entry.size
        self.bytes += entry.size
        return True

    def _remove(self, key: Hashable) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
        return entry

    def _read(self, start: Position, limit: int) -> list[Entry]:
        """Read on in the spool; where it ends, memory takes what comes next."""
        if self.spool is None:
            return []
        frames = self.spool.read(start, limit, _READ_BYTES)
        with self.lock:
            if not frames:
                # Nobody appends now: what can't be read any more is lost, and was counted.
                frames = self.spool.read(start, limit, _READ_BYTES)
            end = frames[-1].end if frames else self.spool.end
            self._behind = end if self.spool.end > end else None
        return self.decoded(frames, self.spool)

    def decoded(self, frames: list[Frame], spool: Spool) -> list[Entry]:
        """Return the entries of a spool; what can't be read is counted."""
        found = []
        for frame in frames:
            try:
                found.append(decode(frame, spool))
            except (AttributeError, KeyError, TypeError, ValueError):
                # A whole frame, but of a version that writes otherwise.
                with self.lock:
                    self.counters.add("damaged")
                logger.warning("%s: a record can't be read", spool.path)
        return found
