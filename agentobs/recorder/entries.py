"""What the buffer holds: a row that shall be written, or a change of one.

An entry is made in the host's call, and is cheap; its values, by the names of columns, are made
when they are needed: in the writer, or in the call where a spool takes them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from agentobs.recorder.rows import clean, predict

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.recorder.spool import Frame, Position, Spool

# What an entry takes beside its texts, in bytes, as measured with tracemalloc.
OVERHEAD = 1_200

Values = dict[str, Any]


class Kind(StrEnum):
    """What was recorded, as statistics count it."""

    DECISION = "decision"
    TRANSFORMATION = "transformation"
    OUTCOME = "outcome"
    FEEDBACK = "feedback"

    # That of Enum is a function in Python, and each record asks for it several times.
    __hash__ = str.__hash__


# The value of an Enum is a function in Python, too.
_NAMES = {kind: kind.value for kind in Kind}


class Entry:
    """One thing that the writer has to do for the row `id`.

    `position` is where it stands in `spool`, `sequence` its number in the buffer. `is_start`
    marks a row of a run that goes on; `is_replayed` one that another process may have written.
    """

    __slots__ = (
        "_made",
        "_values",
        "changes",
        "cuts",
        "fault",
        "has_waited",
        "id",
        "is_replayed",
        "is_start",
        "kind",
        "position",
        "sequence",
        "size",
        "spool",
        "was_merged",
    )

    def __init__(
        self,
        kind: Kind,
        id: UUID,  # noqa: A002 (the column's name)
        made: Values | Callable[[], Values],
        size: int = 0,
        *,
        changes: int = 0,
        cuts: int = 0,
        is_start: bool = False,
    ) -> None:
        self.kind = kind
        self.id = id
        self.size = size + OVERHEAD
        self.is_start = is_start
        self.is_replayed = False
        # What was changed and not counted yet.
        self.changes = changes
        self.cuts = cuts
        # Why there are no values of it.
        self.fault: str | None = None
        # Whether another process may have changed the row since it came.
        self.has_waited = False
        self.spool: Spool | None = None
        self.position: Position | None = None
        self.sequence = 0
        self.was_merged: tuple[Kind, ...] = ()
        self._made = made
        self._values: Values | None = None

    def __repr__(self) -> str:
        return f"Entry({self.kind.value}, {self.id})"

    @property
    def values(self) -> Values:
        """The values of the row, sanitised, by the names of columns."""
        if self._values is None:
            self._values, changes, cuts = self._make()
            # Those of a start are counted with its end.
            if not self.is_start:
                self.changes += changes
                self.cuts += cuts
        return self._values

    @property
    def is_made(self) -> bool:
        """Whether its values were asked for: it is on its way to the database, or in a spool."""
        return self._values is not None

    def _make(self) -> tuple[Values, int, int]:
        made = self._made
        try:
            return clean(made if isinstance(made, dict) else made())
        except Exception as error:  # noqa: BLE001 (a record that was not checked holds anything)
            self.fault = f"its values can't be made: {type(error).__name__}"
            return {"id": self.id}, 0, 0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What it counts as: once for each call that went into it."""
        return self.was_merged if self.is_start else (self.kind, *self.was_merged)

    @property
    def parent(self) -> UUID | None:
        """The event that the row is nested in."""
        return self.values.get("parent_event_id")

    def merge(self, other: Entry) -> None:
        """Let what another entry knows of the same row win over what this one does."""
        is_whole = other.kind is Kind.FEEDBACK
        news = other.values.items()
        self.values.update((name, value) for name, value in news if is_whole or value is not None)
        self.changes, other.changes = self.changes + other.changes, 0
        self.cuts, other.cuts = self.cuts + other.cuts, 0
        # A start is counted when its run has ended.
        self.was_merged += other.was_merged if self.is_start else (other.kind, *other.was_merged)
        self.is_start = self.is_start and other.is_start
        if self.kind is Kind.DECISION:
            predict(self.values)

    def encode(self) -> bytes:
        """Encode the entry for a spool."""
        return orjson.dumps((_NAMES[self.kind], self.is_start, self.id, self.values))


def decode(frame: Frame, spool: Spool) -> Entry:
    """Return the entry that a spool holds; raise ValueError, TypeError or KeyError for none."""
    kind, is_start, key, values = orjson.loads(frame.payload)
    for name in _KEYS & values.keys():
        values[name] = values[name] and UUID(values[name])
    size = len(frame.payload)
    entry = Entry(Kind(kind), UUID(key), values, size, is_start=is_start)
    entry.spool, entry.position = spool, frame.position
    return entry


_KEYS = frozenset({"id", "parent_event_id"})
