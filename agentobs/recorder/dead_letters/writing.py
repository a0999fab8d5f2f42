"""Rows that the database refuses for good, in files of JSON lines.

Each process writes files of its own, one a day, so that lines of two never mix. Who changes a file
holds its lock, and looks then whether it is still there: those that are read again are replaced.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

import orjson

from agentobs.recorder.spool.folder import explained, leads_to, make_durable, sync_path
from agentobs.recorder.spool.raw_write import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

logger = logging.getLogger("agentobs.recorder")

_SUFFIX = ".jsonl"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
# Rows are secret.
_PRIVATE = 0o600


@dataclass(frozen=True)
class DeadLetter:
    """A row, by its columns, and why the database refuses it."""

    kind: str
    id: UUID
    reason: str
    row: Mapping[str, Any] = field(repr=False)
    sqlstate: str | None = None
    constraint: str | None = None


class DeadLetters:
    """The file of this process in a folder; both are made by the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._path: Path | None = None
        self._beginning = ""

    @property
    def path(self) -> Path | None:
        """Where the last letters went; None before the first."""
        return self._path

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Append letters; they outlive a loss of power. After an error none of them is there."""
        now = datetime.now(UTC)
        lines = b"".join(_line(letter, now) for letter in letters)
        if not lines:
            return
        with self._lock:
            path = self._path_at(now)
            with explained(path):
                make_durable(self._folder)
                self._append(path, lines)

    def _path_at(self, now: datetime) -> Path:
        day_and_process = f"{now:%Y-%m-%d} {os.getpid()}"
        if self._path is None or self._beginning != day_and_process:
            name = f"{now:%Y-%m-%dT%H-%M-%S}Z-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            self._beginning, self._path = day_and_process, self._folder / name
        return self._path

    def _append(self, path: Path, lines: bytes) -> None:
        descriptor = _opened(path)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, lines)
                os.fsync(descriptor)
            except BaseException:
                # If the half of a line stays, nothing shall be written behind it.
                self._path = None
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            sync_path(self._folder)


def dead_letter_files(folder: Path) -> list[Path]:
    """List the files of all processes, the oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def read_dead_letters(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the letters of all processes, file by file, the oldest first.

    Each is the object that its line holds: when it was written (`at`), the fields of DeadLetter,
    and values that JSON does not know as text. Where these are no JSON at all, each is text, and
    `as_text` says so. The half line of a process that died is left out.
    """
    for path in dead_letter_files(folder):
        with explained(path), path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError:
                    if line.endswith(b"\n"):
                        logger.warning("%s: line %d is damaged, and goes unread", path, number)


def _line(letter: DeadLetter, now: datetime) -> bytes:
    told = {each.name: getattr(letter, each.name) for each in fields(letter)}
    told["row"] = dict(letter.row)
    try:
        return orjson.dumps({"at": now, **told}, default=str, option=_OPTIONS)
    except TypeError:
        # Integers over 64 bits, lone surrogates, and whatever else made the row a dead letter.
        row = {str(column): _text_of(value) for column, value in letter.row.items()}
        shown = {"at": now.isoformat(), **told, "id": str(letter.id), "row": row, "as_text": True}
        return json.dumps(shown).encode() + b"\n"


def _opened(path: Path) -> int:
    """Open a file to append to, with its lock."""
    while True:
        descriptor = os.open(path, _APPEND, _PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if leads_to(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # It was replaced while we waited.
        os.close(descriptor)


def _text_of(value: object) -> str | None:
    try:
        return None if value is None else str(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"
