"""What the buffer holds: a row that shall be written, or a change of one.

An entry is made in the host's call, and is cheap; its values, by the names of columns, are made
when they are needed: in the writer, or in the call where a spool takes them.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from agentobs.recorder.records import Alternative, Confidence, Hashes, Timings
from agentobs.recorder.rows import clean, decision_values, predict

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.recorder.spool.spool import Frame, Position, Spool

# What an entry takes beside its texts, in bytes, as measured with tracemalloc.
OVERHEAD = 1_200

# What stands first in a spool where a decision is kept by the fields of its record.
_DECISION = "fields of decision"

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

    # Most entries keep these, which is cheaper than to set them on each.
    is_start = is_replayed = False
    # What was changed and not counted yet.
    changes = cuts = 0
    # Why there are no values of it.
    fault: str | None = None
    # Whether another process may have changed the row since it came.
    has_waited = False
    # Until when it may wait for a row of another one, by the monotonic clock; None before it does.
    held_until: float | None = None
    # Until when it may be refused, likewise; None before it was.
    refused_until: float | None = None
    spool: Spool | None = None
    position: Position | None = None
    sequence = 0
    was_merged: tuple[Kind, ...] = ()
    _values: Values | None = None

    def __init__(
        self,
        kind: Kind,
        id: UUID,  # noqa: A002 (the column's name)
        made: Values | Callable[[], Values],
        size: int = 0,
    ) -> None:
        self.kind = kind
        self.id = id
        self.size = size + OVERHEAD
        self._made = made

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
        try:
            return clean(self._given())
        except Exception as error:  # noqa: BLE001 (a record that was not checked holds anything)
            self.fault = f"its values can't be made: {type(error).__name__}"
            return {"id": self.id}, 0, 0

    def _given(self) -> Values:
        return self._made if isinstance(self._made, dict) else self._made()

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


class DecisionEntry(Entry):
    """A routing decision, by the fields of its record: its values are many, and made later."""

    kind = Kind.DECISION

    def __init__(self, id: UUID, correlation_id: UUID, fields: dict[str, Any]) -> None:  # noqa: A002 (the column's name)
        self.id = id
        self.size = OVERHEAD
        self._correlation_id = correlation_id
        self._fields = fields

    def _given(self) -> Values:
        return decision_values(self.id, self._correlation_id, self._fields)

    def encode(self) -> bytes:
        """Encode the fields, which takes a third of the time that the values do."""
        # What was checked is a tuple, which nobody changes while orjson asks for what is in it.
        if not self.is_made and type(self._fields["alternatives"]) is tuple:
            facts = (_DECISION, self.id, self._correlation_id, self._fields)
            with suppress(orjson.JSONEncodeError):
                return orjson.dumps(facts, default=_fields_of)
        return super().encode()


def _fields_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, Hashes) else value.__dict__


def decode(frame: Frame, spool: Spool) -> Entry:
    """Return the entry that a spool holds; raise ValueError, TypeError or KeyError for none."""
    entry = _entry_of(*orjson.loads(frame.payload))
    entry.size += len(frame.payload)
    entry.spool, entry.position = spool, frame.position
    return entry


def _entry_of(kind: str, *told: Any) -> Entry:
    if kind == _DECISION:
        key, correlation_id, fields = told
        return DecisionEntry(UUID(key), UUID(correlation_id), _fields_from(fields))
    is_start, key, values = told
    for name in _KEYS & values.keys():
        values[name] = values[name] and UUID(values[name])
    entry = Entry(Kind(kind), UUID(key), values)
    entry.is_start = is_start
    return entry


def _fields_from(told: dict[str, Any]) -> dict[str, Any]:
    confidence, timings = told["confidence"], told["timings_us"]
    return told | {
        "confidence": confidence and Confidence.model_construct(**confidence),
        "timings_us": timings and Timings.model_construct(**timings),
        "alternatives": [Alternative.model_construct(**other) for other in told["alternatives"]],
        "hashes": Hashes(*told["hashes"]),
    }


_KEYS = frozenset({"id", "parent_event_id"})
