"""What goes into a batch: what is due, with what it rests on."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from agentobs.recorder.entries import Entry, Kind
from agentobs.recorder.writing.batch import add_parents
from agentobs.recorder.writing.pace import in_turns

if TYPE_CHECKING:
    from uuid import UUID

    from agentobs.recorder.buffer import Buffer
    from agentobs.recorder.open_runs import OpenRuns
    from agentobs.recorder.writing.batch import Batch
    from agentobs.recorder.writing.held import Held
    from agentobs.recorder.writing.replay import Replay
    from agentobs.settings import RecorderSettings

# About a millisecond each.
_TURN, _TURN_OF_VALUES = 250, 50


class Composer:
    """Fills batches for the writer.

    `starts` are those that were read from the spool, until their end is; `announced` the runs whose
    start is stored. With `is_ending`, whatever goes on is written as it is.
    """

    def __init__(
        self,
        buffer: Buffer,
        open_runs: OpenRuns,
        settings: RecorderSettings,
        *,
        replay: Replay | None,
        children: Held,
        changes: Held,
    ) -> None:
        self.starts: dict[UUID, Entry] = {}
        self.announced: set[UUID] = set()
        self.is_ending = False
        self._buffer, self._open_runs, self._settings = buffer, open_runs, settings
        self._replay, self._children, self._changes = replay, children, changes

    def compose(self, batch: Batch) -> None:
        """Take a batch: what is due, with the parents that are on the way themselves."""
        limit = self._settings.flush_rows
        for entry in in_turns(self._buffer.take(limit), _TURN):
            self._add(batch, entry, self.starts)
        if self._replay is not None:
            self._compose_replay(batch, self._replay, limit)
        self._add_left_starts(batch)
        self._add_late_starts(batch)
        add_parents(batch.events, self._find)
        self._hold_children_of_held(batch)
        # Their values are made here, and not while callers wait for the lock.
        entries = in_turns(batch, _TURN_OF_VALUES)
        changed = [entry for entry in entries if entry.values and (entry.changes or entry.cuts)]
        with self._buffer.lock:
            for entry in changed:
                self._buffer.counters.note_changes(entry)

    def _add_late_starts(self, batch: Batch) -> None:
        """Add the runs that have gone on for long; when we end, all that go on."""
        late = time.monotonic() - self._settings.announce_after
        for start in self._open_runs.begun_before(math.inf if self.is_ending else late):
            if self._children.get(start.kind, start.id) is None:
                batch.events.setdefault(start.id, start)

    def _add_left_starts(self, batch: Batch) -> None:
        """Add the starts that no end followed, once the spool was read to its end."""
        if self.starts and not self._buffer.is_behind:
            for start in self.starts.values():
                batch.events.setdefault(start.id, start)
            self.starts.clear()

    def _compose_replay(self, batch: Batch, replay: Replay, limit: int) -> None:
        for entry in replay.take(limit):
            self._add(batch, entry, replay.starts)
        if replay.is_at_end:
            for start in replay.unended():
                batch.events.setdefault(start.id, start)

    def _add(self, batch: Batch, entry: Entry, starts: dict[UUID, Entry]) -> None:
        batch.is_doubtful |= entry.is_replayed
        if entry.kind is Kind.DECISION:
            batch.metrics[entry.id] = entry
        elif entry.kind is not Kind.TRANSFORMATION:
            self._add_change(batch, entry)
        elif entry.is_start:
            if self._open_runs.get(entry.id) is None and entry.id not in self.announced:
                starts[entry.id] = entry
        else:
            starts.pop(entry.id, None)
            self._add_end(batch, entry)

    def _add_change(self, batch: Batch, entry: Entry) -> None:
        if self._changes.get(entry.kind, entry.id) is None:
            batch.add_update(entry)
        else:
            # The one that waits is the older one, and must not come after it.
            self._changes.hold(entry, entry.id)

    def _add_end(self, batch: Batch, entry: Entry) -> None:
        if (held := self._children.get(entry.kind, entry.id)) is not None:
            self._children.merge(held, entry)
            held.sequence = held.sequence or entry.sequence
        elif entry.id in self.announced:
            batch.completions[entry.id] = entry
        else:
            batch.events[entry.id] = entry

    def _find(self, key: UUID) -> Entry | None:
        """Return the row of a parent that is on its way, or that of a run that goes on."""
        if key in self.announced or self._children.get(Kind.TRANSFORMATION, key) is not None:
            return None
        starts = self.starts.pop(key, None)
        replayed = self._replay.starts.pop(key, None) if self._replay else None
        return self._buffer.pull(key) or self._open_runs.take(key) or starts or replayed

    def _hold_children_of_held(self, batch: Batch) -> None:
        if not self._children:
            return
        for entry in sorted(batch.events.values(), key=lambda entry: entry.id):
            parent = entry.parent
            if parent and self._children.get(Kind.TRANSFORMATION, parent) is not None:
                self._children.hold(batch.events.pop(entry.id), parent)
