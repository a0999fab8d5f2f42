"""What a recorder has done: counted exactly, by kind, and shown as one frozen object."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs.recorder.entries import Entry, Kind

# The upper bounds of the flush latencies that are counted, in seconds.
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

# What became of records that were accepted; each accepted one is in one of them, or pending.
SETTLED = ("written", "dead_lettered", "unmatched", "abandoned", "spooled", "lost")
# What was never accepted.
TURNED_AWAY = ("dropped", "refused")

_SINGLE = (
    "sanitised",
    "cut",
    "orphaned",
    "unspooled",
    "damaged",
    "retried",
    "flushes",
)
# What is measured when it is asked for.
_DEPTHS = (
    "buffer_rows",
    "buffer_bytes",
    "held_rows",
    "held_bytes",
    "open_runs",
    "spool_bytes",
)
_GAUGES = ("reconnected", *_DEPTHS)
_OF_NOW = frozenset({"pending", "flush_seconds_longest", *_DEPTHS})


class Statistics(BaseModel):
    """A recorder's counts since it was started; mappings are by kind of record.

    accepted: calls whose record was taken
    written: stored in the database; what was merged into a row counts with it
    dropped: not taken, for want of room
    refused: not taken, for the record or the recorder's state did not allow it
    dead_lettered: refused by the database, and kept in the dead-letter file
    unmatched: outcomes and feedback whose decision never came, kept in the dead-letter file
    abandoned: not written when the recorder was closed, and kept in the dead-letter file
    spooled: not written when the recorder was closed, and left to the next one in the spool
    lost: should have been in the dead-letter file or the spool, which was not to be written or read
    replayed: read from the spool of a process that died, and settled
    pending: accepted, and on the way
    sanitised, cut: values that were replaced, and contexts and texts that were shortened
    orphaned: rows whose parent never came, written without it
    unspooled: records that are in memory only, for the spool could not be written
    damaged: what could not be read of a spool
    retried, reconnected: batches that were sent again, and connections that were opened again
    held_rows, held_bytes: what waits for rows of other processes; is also pending
    open_runs: runs that have begun and not ended
    """

    model_config = ConfigDict(frozen=True)

    accepted: dict[str, int]
    written: dict[str, int]
    dropped: dict[str, int]
    refused: dict[str, int]
    dead_lettered: dict[str, int]
    unmatched: dict[str, int]
    abandoned: dict[str, int]
    spooled: dict[str, int]
    lost: dict[str, int]
    replayed: dict[str, int]
    pending: int
    sanitised: int
    cut: int
    orphaned: int
    unspooled: int
    damaged: int
    retried: int
    reconnected: int
    buffer_rows: int
    buffer_bytes: int
    held_rows: int
    held_bytes: int
    open_runs: int
    spool_bytes: int
    flushes: int
    flush_seconds: float
    flush_seconds_longest: float
    flush_latencies: dict[float, int]

    @property
    def completeness(self) -> float:
        """The share of records that are, or will be, in the database; 1 where there are none.

        Of a closed recorder, those that it has written: what it left in a spool, the next one
        counts as replayed.
        """
        # What came from the spool of another process was accepted there.
        taken = sum(self.accepted.values()) + sum(self.replayed.values())
        away = sum(sum(getattr(self, name).values()) for name in TURNED_AWAY)
        missing = sum(sum(getattr(self, name).values()) for name in SETTLED if name != "written")
        return max(0.0, taken - missing) / (taken + away) if taken + away else 1.0

    @property
    def has_lost(self) -> bool:
        """Whether there are records that will not be in the database."""
        names = {*SETTLED, *TURNED_AWAY} - {"written", "spooled"}
        return any(number for name in names for number in getattr(self, name).values())

    @property
    def has_counted(self) -> bool:
        """Whether any record came, or anything became of one."""
        names = ("accepted", *SETTLED, *TURNED_AWAY)
        return any(number for name in names for number in getattr(self, name).values())

    def since(self, earlier: Statistics) -> Statistics:
        """Return what was counted after `earlier`; depths and the longest flush are as of now."""
        before = earlier.model_dump()
        return self.model_copy(
            update={
                name: _difference(value, before[name])
                for name, value in self.model_dump().items()
                if name not in _OF_NOW
            }
        )

    def __str__(self) -> str:
        """Say in one line what an operator wants to know."""
        by_kind = {
            name: sum(getattr(self, name).values())
            for name in ("accepted", *SETTLED, *TURNED_AWAY, "replayed")
        }
        single = {
            name: getattr(self, name)
            for name in ("pending", "sanitised", "cut", "orphaned", "unspooled", "retried")
        }
        told = {name: count for name, count in (by_kind | single).items() if count}
        counts = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in told.items())
        return f"{counts or 'nothing recorded'}; {self.completeness:.4%} complete"


def _difference(value: Any, before: Any) -> Any:
    if isinstance(value, dict):
        return {key: number - before.get(key, 0) for key, number in value.items()}
    return value - before


def _by_name(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(kind): number for kind, number in counts.items()}


class Counters:
    """The counts as they grow; who changes one holds the lock, which is the recorder's."""

    def __init__(self) -> None:
        # Re-entrant, for a signal handler may run in the thread that holds it.
        self.lock = threading.RLock()
        names = ("accepted", *SETTLED, *TURNED_AWAY, "replayed")
        self.by_kind: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.single: Counter[str] = Counter()
        self.latencies: Counter[float] = Counter()
        self.flush_seconds = 0.0
        self.flush_seconds_longest = 0.0

    def count(self, what: str, kind: Kind, number: int = 1) -> None:
        """Count records of a kind."""
        self.by_kind[what][kind] += number

    def add(self, what: str, number: int = 1) -> None:
        """Count what is of no kind."""
        self.single[what] += number

    def note_changes(self, entry: Entry) -> None:
        """Count what was changed of an entry and not counted yet."""
        if entry.changes or entry.cuts:
            self.single["sanitised"] += entry.changes
            self.single["cut"] += entry.cuts
            entry.changes = entry.cuts = 0

    def flushed(self, seconds: float) -> None:
        """Count a flush and how long it took."""
        self.single["flushes"] += 1
        self.flush_seconds += seconds
        self.flush_seconds_longest = max(self.flush_seconds_longest, seconds)
        self.latencies[next((b for b in LATENCY_BOUNDS if seconds <= b), float("inf"))] += 1

    def open(self) -> Counter[str]:
        """Return by kind what was accepted and is not settled."""
        number = Counter(self.by_kind["accepted"])
        for name in SETTLED:
            number.subtract(self.by_kind[name])
        # What came from the spools of others was accepted there.
        number.update(self.by_kind["replayed"])
        return number

    def snapshot(self, gauges: Mapping[str, int]) -> Statistics:
        """Return the counts as they are now, with what the recorder measures itself."""
        with self.lock:
            return Statistics(
                **{name: _by_name(counts) for name, counts in self.by_kind.items()},
                **{name: self.single[name] for name in _SINGLE},
                **{name: gauges.get(name, 0) for name in _GAUGES},
                pending=sum(self.open().values()),
                flush_seconds=self.flush_seconds,
                flush_seconds_longest=self.flush_seconds_longest,
                flush_latencies=dict(self.latencies),
            )
