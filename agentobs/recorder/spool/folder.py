"""The folder of one spool: its lock, its segments, and the note of what is settled.

Who writes or takes over a spool holds the lock. A folder without segments means nothing: it was
just made, or is about to go.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import struct
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agentobs.errors import SpoolError
from agentobs.recorder.spool.frames import HEADER, Position, is_torn, payload_at
from agentobs.recorder.spool.raw_write import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d+-[0-9a-f]{8}")
LOCK, NOTE = "lock", "settled"
"""The names of a spool's lock, and of the note of what is settled."""

_NEW_LOCK = "lock.new"
_SEGMENT = ".segment"
_LEFTOVER_AGE = 60.0
_HEADER_ROOM = 64 * 1024
_PLACE, _CHECKSUM = struct.Struct("<QQ"), struct.Struct("<I")
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
# Records are secret.
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise SpoolError for what the system says of a file."""
    try:
        yield
    except OSError as error:
        raise spool_error(path, error) from error


def spool_error(path: Path, error: OSError) -> SpoolError:
    """Return what to raise for an error of the system."""
    reason = error.strerror or type(error).__name__
    if error.errno in _NO_SPACE:
        reason = f"no room for more records ({reason}): free some, or name another folder"
    return SpoolError(path, reason)


@dataclass(frozen=True)
class SpoolSummary:
    """A spool for an operator; the target is None where no segment tells it."""

    path: Path
    target: str | None
    bytes: int
    is_alive: bool


def describe_spools(root: Path) -> list[SpoolSummary]:
    """List the spools below `root` that hold records or belong to a process, the oldest first."""
    found = []
    for path in spool_folders(root):
        with explained(path):
            size = sum(segments_in(path).values())
            summary = SpoolSummary(path, target_of(path), size, is_locked(path))
        if size or summary.is_alive:
            found.append(summary)
    return found


def make_folder(root: Path) -> Path:
    """Make a folder of its own for a new spool; names sort by age."""
    make_durable(root)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = root / f"{now}-{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir(_PRIVATE_FOLDER)
    return path


def spool_folders(root: Path) -> list[Path]:
    """List the folders of spools, the oldest first; none where there is no such folder."""
    with explained(root):
        try:
            found = [path for path in root.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def make_durable(folder: Path) -> None:
    """Make a folder, and those above it, so that they outlive a loss of power."""
    if not folder.is_dir():
        make_durable(folder.parent)
        with explained(folder):
            folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
            sync_path(folder.parent)


def sync_path(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, _READ)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leads_to(path: Path, descriptor: int) -> bool:
    """Tell whether a file is the open one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def make_lock(folder: Path) -> int:
    """Make a spool's lock and take it; return the descriptor that holds it."""
    descriptor = os.open(folder / LOCK, _WRITE | os.O_CREAT, _PRIVATE_FILE)
    # One that lists spools may try it at the same moment.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def make_lock_at_once(folder: Path) -> int:
    """Make a lock as above, which nobody else can take before: the spool may hold records."""
    descriptor = os.open(folder / _NEW_LOCK, _WRITE | os.O_CREAT, _PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (folder / _NEW_LOCK).rename(folder / LOCK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take_lock(folder: Path) -> int | None:
    """Take the lock of a dead process's spool; None if somebody has it, or the spool is gone."""
    try:
        descriptor = os.open(folder / LOCK, _WRITE)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it a moment ago may have removed the folder.
        if os.path.samestat(os.fstat(descriptor), (folder / LOCK).stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_locked(folder: Path) -> bool:
    """Tell whether a process has the lock; one that tries to take it at this moment fails."""
    try:
        with opened_for_reading(folder / LOCK) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def release_lock(descriptor: int) -> None:
    """Let a lock go, even if a forked child still has the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def segment_path(folder: Path, segment: int) -> Path:
    """Return where a segment is."""
    return folder / f"{segment:010d}{_SEGMENT}"


def segments_in(folder: Path) -> dict[int, int]:
    """Return the size of each segment, in order."""
    found = {}
    for path in sorted(folder.glob(f"*{_SEGMENT}")):
        if path.stem.isdecimal():
            with suppress(FileNotFoundError):
                found[int(path.stem)] = path.stat().st_size
    return found


def open_segment(folder: Path, segment: int) -> int:
    """Make a segment, and open it to append to."""
    flags = _WRITE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return os.open(segment_path(folder, segment), flags, _PRIVATE_FILE)


def make_segment(folder: Path, segment: int, content: bytes) -> int:
    """Make a segment that begins with `content`, and open it to append to; or leave none."""
    descriptor = open_segment(folder, segment)
    try:
        write_all(descriptor, content)
    except BaseException:
        os.close(descriptor)
        segment_path(folder, segment).unlink(missing_ok=True)
        raise
    return descriptor


@contextmanager
def opened_for_reading(path: Path) -> Iterator[int]:
    """Open a file for the block."""
    descriptor = os.open(path, _READ)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def target_of(folder: Path) -> str | None:
    """Return a spool's target by the first segment that tells it."""
    for segment in segments_in(folder):
        payload = payload_at(_beginning(folder, segment), 0, HEADER)
        if payload is not None:
            return payload.decode(errors="replace")
    return None


def holds_nothing(folder: Path) -> bool:
    """Tell whether no segment got further than its header."""
    return all(is_torn(_beginning(folder, segment), 0, HEADER) for segment in segments_in(folder))


def _beginning(folder: Path, segment: int) -> bytes:
    """Read where the header is; nothing if the segment was removed in between."""
    try:
        with opened_for_reading(segment_path(folder, segment)) as descriptor:
            return os.pread(descriptor, _HEADER_ROOM, 0)
    except FileNotFoundError:
        return b""


def open_note(folder: Path) -> int:
    """Open the note of what is settled; it is made where it is missing."""
    descriptor = os.open(folder / NOTE, _WRITE | os.O_CREAT, _PRIVATE_FILE)
    if os.fstat(descriptor).st_size == 0:
        # From here on it needs no room, which there may be none of when it is changed.
        write_note(descriptor, Position(0, 0))
    return descriptor


def write_note(descriptor: int, position: Position) -> None:
    """Write the note in place, which no death of the process can tear."""
    content = _PLACE.pack(*position)
    os.pwrite(descriptor, content + _CHECKSUM.pack(zlib.crc32(content)), 0)


def read_note(descriptor: int) -> Position:
    """Read the note; the beginning where there is none, or a damaged one."""
    content = os.pread(descriptor, _PLACE.size, 0)
    checksum = os.pread(descriptor, _CHECKSUM.size, _PLACE.size)
    if checksum != _CHECKSUM.pack(zlib.crc32(content)) or len(content) < _PLACE.size:
        return Position(0, 0)
    return Position(*_PLACE.unpack(content))


def remove_folder(folder: Path) -> None:
    """Remove a spool whose lock is held; what is not ours stays, and so its folder.

    The segments go first: without them nobody takes it for a spool, should this be cut short.
    """
    for path in sorted(folder.glob(f"*{_SEGMENT}")):
        path.unlink(missing_ok=True)
    for name in (NOTE, _NEW_LOCK, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def remove_leftover(folder: Path) -> None:
    """Remove a folder that holds nothing, unless it is in use or was made just now."""
    if time.time() - folder.stat().st_mtime < _LEFTOVER_AGE:
        return
    held = take_lock(folder)
    if held is None:
        # It is empty if its maker died before there was a lock; one in use is not.
        with suppress(OSError):
            folder.rmdir()
        return
    try:
        if holds_nothing(folder):
            remove_folder(folder)
    finally:
        os.close(held)
