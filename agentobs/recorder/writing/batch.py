"""What a flush brings to the database: each row once, parents with their children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from agentobs.recorder.entries import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Rows = dict[UUID, Entry]


@dataclass(slots=True)
class Batch:
    """The entries of a flush, by what has to be done; each is taken out when it is settled."""

    metrics: Rows = field(default_factory=dict)
    events: Rows = field(default_factory=dict)
    completions: Rows = field(default_factory=dict)
    outcomes: Rows = field(default_factory=dict)
    feedback: Rows = field(default_factory=dict)
    # Whether some of it may be stored already: the connection broke, or a process died.
    is_doubtful: bool = False

    def take_faulty(self) -> list[Entry]:
        """Take out the entries that are no rows."""
        faulty = [entry for entry in self if entry.fault is not None]
        for entry in faulty:
            for rows in self.parts:
                if rows.get(entry.id) is entry:
                    del rows[entry.id]
        return faulty

    def take_out(self, entries: Iterable[Entry]) -> None:
        """Take out entries that are settled, or wait elsewhere."""
        gone = set(map(id, entries))
        for rows in self.parts if gone else ():
            left = {key: entry for key, entry in rows.items() if id(entry) not in gone}
            if len(left) < len(rows):
                rows.clear()
                rows.update(left)

    def __iter__(self) -> Iterator[Entry]:
        for rows in self.parts:
            yield from rows.values()

    @property
    def parts(self) -> tuple[Rows, ...]:
        """The parts in the order in which they are delivered."""
        return (self.metrics, self.events, self.completions, self.outcomes, self.feedback)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def add_update(self, entry: Entry) -> None:
        """Add an outcome or feedback: into its row, or an earlier one for the same row."""
        rows = self.outcomes if entry.kind is Kind.OUTCOME else self.feedback
        into = self.metrics.get(entry.id) or rows.get(entry.id)
        if into is None:
            rows[entry.id] = entry
        else:
            into.merge(entry)


def in_order(rows: Rows) -> list[Entry]:
    """Return the entries in the order of their keys."""
    # UUIDs themselves compare in Python.
    return sorted(rows.values(), key=lambda entry: entry.id.int)


def add_parents(events: Rows, find: Callable[[UUID], Entry | None]) -> None:
    """Add the parents of events that `find` knows, and theirs."""
    open_ends = [entry.parent for entry in events.values()]
    while open_ends:
        key = open_ends.pop()
        if key is None or key in events:
            continue
        if (found := find(key)) is not None:
            events[key] = found
            open_ends.append(found.parent)


def with_descendants(events: Rows, missing: Iterable[UUID]) -> dict[UUID, Entry]:
    """Return the events whose parent is missing, and all that are nested in them."""
    gone, found = set(missing), dict[UUID, Entry]()
    # A parent's key need not come first: a clock may have been set back between the two.
    while more := {
        key: entry
        for key, entry in events.items()
        if key not in found and (entry.parent in gone or entry.parent in found)
    }:
        found |= more
    return found
