"""Files of dead letters, read and written anew, also beside a recorder that appends to them."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from itertools import islice
from typing import IO, TYPE_CHECKING

from agentobs.errors import SpoolError
from agentobs.recorder.spool.folder import explained, leads_to, sync_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NEW = ".new"
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# Rows are secret.
_PRIVATE = 0o600


class Rewriting:
    """A file of letters, and what is to stand in its place."""

    def __init__(self, path: Path, file: IO[bytes], new: IO[bytes]) -> None:
        self._path = path
        self._file, self._new = file, new
        self._passed = 0

    def lines(self, limit: int) -> list[bytes]:
        """Read the next lines that `replace` has not passed; none behind the last whole one."""
        with explained(self._path):
            self._file.seek(self._passed)
            return [line for line in islice(self._file, limit) if line.endswith(b"\n")]

    def replace(self, lines: Iterable[bytes], kept: Iterable[bytes]) -> None:
        """Let `kept` stand in the place of the lines that were read."""
        with explained(self._path):
            self._new.writelines(kept)
        self._passed += sum(map(len, lines))

    def finish(self) -> None:
        """Put the new file, with what was not passed, in the place of the other one."""
        with explained(self._path):
            # Whoever appends has the lock, too, and looks for the new file after us.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if not leads_to(self._path, self._file.fileno()):
                raise SpoolError(self._path, "was replaced while its letters were sent: run again")
            self._file.seek(self._passed)
            shutil.copyfileobj(self._file, self._new)
            self._new.flush()
            os.fsync(self._new.fileno())
            self._exchange()

    def _exchange(self) -> None:
        if self._new.tell():
            _new_path(self._path).rename(self._path)
        else:
            self._path.unlink()
        sync_path(self._path.parent)


@contextmanager
def rewriting(path: Path) -> Iterator[Rewriting]:
    """Write a file of letters anew in the block, at whose end the new one is in its place.

    Only one process at a time may do so; see `alone_in`.
    """
    with explained(path):
        file = path.open("r+b")
    with file, _made(_new_path(path)) as new:
        work = Rewriting(path, file, new)
        try:
            yield work
        finally:
            # After an error too: what was replaced so far is settled.
            work.finish()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process send the letters of a folder in the block."""
    with explained(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolError(folder, "another process sends these letters: wait for it") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _made(path: Path) -> Iterator[IO[bytes]]:
    with explained(path):
        # One that was left by a process that died is worth nothing.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, _MAKE, _PRIVATE)
    file = os.fdopen(descriptor, "wb")
    try:
        yield file
    finally:
        # What counts was flushed; what a full disk did not take fails here once more.
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            path.unlink()


def _new_path(path: Path) -> Path:
    return path.with_name(path.name + _NEW)
