"""Dead letters, sent to the database again."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentobs.errors import ConflictError
from agentobs.models import EventType
from agentobs.recorder.dead_letters.files import alone_in, rewriting
from agentobs.recorder.entries import Entry, Kind
from agentobs.recorder.writing.batch import in_order
from agentobs.recorder.writing.delivery import Delivered, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agentobs.recorder.dead_letters.files import Rewriting
    from agentobs.settings import DatabaseSettings

_AT_ONCE = 500
_AS_TEXT = "can't be sent again, for its values are kept as text only"
_NO_VALUES = "can't be sent again, for its values are not kept"
_NO_LETTER = "is no dead letter"
_LOCKED = "another transaction has locked its row: send it again"
_UNMATCHED = "no such decision was ever stored"
_PARENTLESS = "its parent is not stored"
# What may go once others are there.
_WAITING = frozenset({_UNMATCHED, _PARENTLESS})
# The columns that tell what was merged into a decision.
_PARTS = {Kind.OUTCOME: "selection_validated", Kind.FEEDBACK: "feedback_provided"}


@dataclass
class Resent:
    """What became of letters, by kind: those that the database has, and by reason those left."""

    sent: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(eq=False)
class _Letter:
    """A line of a file, and why it stays there; None where the database has its row."""

    line: bytes
    reason: str | None
    told: dict[str, Any] = field(default_factory=dict)
    entry: Entry | None = None

    @property
    def kind(self) -> str:
        return str(self.told.get("kind", "unknown"))

    def refuse(self, reason: str, error: Exception | None = None) -> None:
        """Note the reason for which it stays this time."""
        self.reason = reason
        of_server = {name: getattr(error, name, None) for name in ("sqlstate", "constraint")}
        self.told |= {"reason": reason, **of_server}
        self.line = json.dumps(self.told).encode() + b"\n"


async def resend(files: Sequence[Path], settings: DatabaseSettings) -> Resent:
    """Send the letters of files again, each by its id exactly once.

    Those whose row the database has leave their file; the others stay, with the new reason. Raises
    the errors that are not the fault of a row; what was settled before has left its file.
    """
    delivery, result = Delivery(settings), Resent()
    try:
        is_worth_it = True
        while is_worth_it:
            before = result.sent.total()
            result.left.clear()
            for path in _still_there(files):
                await _resend_file(path, delivery, result)
            has_waiting = any(reason in _WAITING for _, reason in result.left)
            is_worth_it = has_waiting and result.sent.total() > before
    finally:
        await delivery.close()
    return result


async def _resend_file(path: Path, delivery: Delivery, result: Resent) -> None:
    with alone_in(path.parent), rewriting(path) as file:
        while lines := file.lines(_AT_ONCE):
            await _resend_lines(lines, file, delivery, result)


def _still_there(files: Sequence[Path]) -> list[Path]:
    """Return the files that were not sent whole, by us or by another process."""
    return [path.resolve() for path in files if path.exists()]


async def _resend_lines(
    lines: list[bytes], file: Rewriting, delivery: Delivery, result: Resent
) -> None:
    letters = [_letter_of(line) for line in lines]
    await _send(letters, delivery)
    left = [letter for letter in letters if letter.reason is not None]
    file.replace(lines, [letter.line for letter in left])
    result.sent.update(letter.kind for letter in letters if letter.reason is None)
    result.left.update((letter.kind, letter.reason or "") for letter in left)


def _letter_of(line: bytes) -> _Letter:
    try:
        told = json.loads(line)
        entry, columns = _entry_of(told), told["row"].keys()
    except (AttributeError, KeyError, TypeError, ValueError):
        return _Letter(line, _NO_LETTER)
    if told.get("as_text"):
        return _Letter(line, _AS_TEXT, told)
    if columns <= {"id"}:
        return _Letter(line, _NO_VALUES, told)
    return _Letter(line, _LOCKED, told, entry)


def _entry_of(told: dict[str, Any]) -> Entry:
    kind, row = Kind(told["kind"]), told["row"]
    keys = {"id": UUID(told["id"])}
    if parent := row.get("parent_event_id"):
        keys["parent_event_id"] = UUID(parent)
    entry = Entry(kind, keys["id"], row | keys)
    entry.is_start = row.get("event_type") == EventType.START
    # Others may have written, or changed, the row since.
    entry.is_replayed = True
    if kind is Kind.DECISION:
        entry.was_merged = tuple(part for part, name in _PARTS.items() if row.get(name))
    return entry


async def _send(letters: list[_Letter], delivery: Delivery) -> None:
    """Send letters, and note with each what became of it."""
    groups: dict[tuple[Kind, UUID], list[_Letter]] = {}
    for letter in letters:
        if letter.entry is not None:
            groups.setdefault((letter.entry.kind, letter.entry.id), []).append(letter)
    of_entry = {_merged(group): group for group in groups.values()}
    done = await _deliver(of_entry, delivery)
    for entry in done.written:
        for letter in of_entry[entry]:
            letter.reason = None
    for entry, reason, error in await _refused(done, delivery):
        for letter in of_entry[entry]:
            letter.refuse(reason, error)


def _merged(letters: list[_Letter]) -> Entry:
    """Return what letters tell of the same row, in the order in which they were written."""
    entries = [letter.entry for letter in letters if letter.entry is not None]
    # A run's end wins, wherever it stands.
    first, *more = sorted(entries, key=lambda entry: not entry.is_start)
    for entry in more:
        first.merge(entry)
    return first


async def _deliver(entries: Iterable[Entry], delivery: Delivery) -> Delivered:
    """Send entries; those that nothing is told of could not be changed now."""
    done, of_kind = Delivered(), dict[Kind, dict[UUID, Entry]]()
    for entry in entries:
        of_kind.setdefault(entry.kind, {})[entry.id] = entry
    decisions, runs, outcomes, feedback = (in_order(of_kind.get(kind, {})) for kind in Kind)
    with suppress(ConflictError):
        await delivery.insert_metrics(decisions, done, is_doubtful=True)
    with suppress(ConflictError):
        await delivery.insert_events(runs, done, is_doubtful=True)
    with suppress(ConflictError):
        await delivery.update_outcomes(outcomes, done)
        await delivery.update_feedback(feedback, done)
    return done


async def _refused(
    done: Delivered, delivery: Delivery
) -> list[tuple[Entry, str, Exception | None]]:
    stored = await delivery.stored_metrics([entry.id for entry in done.unmatched])
    return [
        *((entry, str(error), error) for entry, error in done.refused),
        *((entry, _PARENTLESS, None) for entry in done.parentless),
        *((entry, _UNMATCHED, None) for entry in done.unmatched if entry.id not in stored),
    ]
