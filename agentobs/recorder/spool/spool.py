"""Records in a file, from the call that accepts them until the database has them.

What was appended outlives the process, and after a sync the machine. A spool is a folder of
segments, which are deleted when all in them is settled. Its process holds its lock; when that is
dead, another one takes the spool over.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from threading import Lock, RLock
from typing import TYPE_CHECKING

from agentobs.errors import SpoolError
from agentobs.recorder.spool.folder import (
    LOCK,
    SpoolSummary,
    describe_spools,
    explained,
    holds_nothing,
    make_folder,
    make_lock,
    make_segment,
    open_note,
    read_note,
    release_lock,
    remove_folder,
    remove_leftover,
    segment_path,
    segments_in,
    spool_error,
    spool_folders,
    sync_path,
    take_lock,
    target_of,
    write_note,
)
from agentobs.recorder.spool.frames import HEADER, MAX_PAYLOAD, Frame, Position, encode_frame
from agentobs.recorder.spool.healing import restore_folder, restore_segment
from agentobs.recorder.spool.raw_write import write_all
from agentobs.recorder.spool.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Frame", "Position", "Spool", "SpoolSummary", "describe_spools", "take_over"]

logger = logging.getLogger("agentobs.recorder")

_SEGMENT_BYTES = 16 * 2**20
_KEPT_BYTES = 2**20
_NONE = -1
_REFUSALS = {errno.EIO, errno.ENOSPC, errno.EDQUOT}
_BEGINNING = Position(0, 0)


class Spool:
    """A spool that this process writes, or has taken over to read.

    One thread at a time appends, one reads and settles, and any may sync. In a forked child call
    `abandon`, and nothing else.
    """

    def __init__(self, path: Path, lock: int, target: str, segment_bytes: int) -> None:
        """Open the spool whose lock is held; with segments of 0 bytes for reading only."""
        self.path = path
        self._header = encode_frame(target.encode(), HEADER)
        self._segment_bytes = segment_bytes
        self._lock_descriptor = lock
        self._note_descriptor = open_note(path)
        # append waits for it, so nobody who holds it touches the disk, but to make a segment.
        self._lock = RLock()
        self._is_appending = False
        self._sync_lock = Lock()
        self._descriptor = _NONE
        self._finished = segments_in(path)
        self._finished_bytes = sum(self._finished.values())
        self._end = max(map(Position._make, self._finished.items()), default=_BEGINNING)
        self._synced = _BEGINNING
        self._doubtful: set[int] = set()
        self._settled = min(read_note(self._note_descriptor), self._end)
        self._damaged: set[Position] = set()

    @classmethod
    def create(cls, root: Path, target: str, *, segment_bytes: int = _SEGMENT_BYTES) -> Spool:
        """Make a spool in a folder of its own below `root`.

        `target` names the database and the schema, for whoever takes the spool over.
        """
        with explained(root):
            path = make_folder(root)
            return _opened(path, make_lock(path), target, segment_bytes)

    def append(self, payload: bytes) -> Position:
        """Write a payload behind the others; return where its frame begins.

        After an error nothing of it is there, and the next call tries anew.
        """
        if len(payload) > MAX_PAYLOAD:
            raise SpoolError(self.path, f"a record has more than {MAX_PAYLOAD} bytes")
        frame = encode_frame(payload)
        with self._lock:
            if self._is_appending:
                # By a signal handler, or a finalizer: the frame of the other one is half written.
                raise SpoolError(self.path, "a record was made in the middle of another one")
            self._is_appending = True
            try:
                return self._append(frame)
            finally:
                self._is_appending = False

    def _append(self, frame: bytes) -> Position:
        if self._descriptor == _NONE or self._end.offset >= self._segment_bytes:
            self._begin_segment()
        begin = self._end
        try:
            write_all(self._descriptor, frame)
            self._end = Position(begin.segment, begin.offset + len(frame))
        except BaseException as error:
            self._cut_off(error)
            raise
        return begin

    def sync(self) -> None:
        """Make all that was appended before the call outlive a loss of power.

        What the disk once refused is in doubt until it is settled, and as long every call raises;
        so does what somebody has deleted, where it can't be put back.
        """
        with self._sync_lock, explained(self.path):
            try:
                self._sync()
                is_whole = self._is_whole()
            except FileNotFoundError:
                is_whole = False
            if not is_whole:
                self._heal()
                self._sync()

    def _sync(self) -> None:
        end = self._end
        if self._synced >= end:
            return
        for segment in self._segments(self._synced.segment):
            self._sync_segment(segment)
        self._sync_names(end)
        if self._doubtful.intersection(self._segments(0)):
            raise SpoolError(self.path, "records may be lost: refused by the disk, or deleted")
        self._synced = end

    @property
    def is_synced(self) -> bool:
        """Tell whether all that was appended is synced, and nobody has deleted it since."""
        return self._synced >= self._end and self._is_whole()

    @property
    def end(self) -> Position:
        """Where the next frame begins, or at the latest what comes before it."""
        return self._end

    @property
    def settled(self) -> Position:
        """What is before it needs no replay."""
        return self._settled

    @property
    def size(self) -> int:
        """How many bytes are not settled."""
        with self._lock:
            current = self._end.offset if self._descriptor != _NONE else 0
            is_there = current and self._settled.segment == self._end.segment
            if is_there or self._settled.segment in self._finished:
                current -= self._settled.offset
            return self._finished_bytes + current

    @property
    def damaged(self) -> int:
        """How many places were found that can't be read."""
        return len(self._damaged)

    def read(self, start: Position, max_frames: int, max_bytes: int) -> list[Frame]:
        """Return the frames from `start` on that are not settled; none at the end only.

        The bounds are of frames and of bytes of payload, and the first frame comes in any case.
        """
        start = max(start, self._settled)
        reading = Reading(self.path, max_frames, max_bytes, self._damaged)
        with explained(self.path):
            if not self._is_whole():
                with self._sync_lock:
                    self._heal()
            for segment, limit in self._segments(start.segment).items():
                begin = start if segment == start.segment else Position(segment, 0)
                reading.read_segment(begin, limit)
                if reading.is_full:
                    break
        return reading.frames

    def holds(self, position: Position) -> bool:
        """Tell whether what was appended there is in a file that somebody can find."""
        return segment_path(self.path, position.segment).exists()

    def settle(self, position: Position) -> None:
        """Note that nothing before `position` needs a replay, and delete what is all before it."""
        with self._lock:
            self._settled = max(self._settled, min(position, self._end))
            is_idle = self._settled == self._end and self._end.offset > _KEPT_BYTES
            left = self._finish_segment() if is_idle else _NONE
            retired = self._retire_segments()
        with explained(self.path):
            try:
                _close(left)
                for segment in retired:
                    segment_path(self.path, segment).unlink(missing_ok=True)
            finally:
                write_note(self._note_descriptor, self._settled)

    def close(self) -> None:
        """Let the spool go: what is not settled stays for whoever takes it over."""
        if self._lock_descriptor == _NONE:
            return
        self._stop()
        try:
            if self.read(self._settled, 1, 1):
                self.sync()
            else:
                self._remove()
        finally:
            lock, self._lock_descriptor = self._lock_descriptor, _NONE
            note, self._note_descriptor = self._note_descriptor, _NONE
            _close(note)
            release_lock(lock)

    def abandon(self) -> None:
        """Forget, in a forked child, the spool that is the parent's."""
        # A thread of the parent may have had them, and does not exist here.
        self._lock, self._sync_lock = RLock(), Lock()
        self._segment_bytes = 0
        for name in ("_descriptor", "_note_descriptor", "_lock_descriptor"):
            descriptor = getattr(self, name)
            setattr(self, name, _NONE)
            _close(descriptor)

    def _begin_segment(self) -> None:
        if not self._segment_bytes:
            raise SpoolError(self.path, "takes no more records: it was closed or taken over")
        segment = self._end.segment + 1
        with explained(segment_path(self.path, segment)):
            descriptor = make_segment(self.path, segment, self._header)
        left = self._finish_segment()
        self._descriptor, self._end = descriptor, Position(segment, len(self._header))
        _close(left)

    def _finish_segment(self) -> int:
        """Append no more to the segment; return its descriptor, which is then to be closed."""
        descriptor, self._descriptor = self._descriptor, _NONE
        if descriptor != _NONE:
            self._finished[self._end.segment] = self._end.offset
            self._finished_bytes += self._end.offset
        return descriptor

    def _retire_segments(self) -> list[int]:
        """Forget the segments that are settled, and return them."""
        retired = [place[0] for place in self._finished.items() if place <= self._settled]
        for segment in retired:
            self._finished_bytes -= self._finished.pop(segment)
        return retired

    def _cut_off(self, error: BaseException) -> None:
        """Leave nothing of a frame that is not whole."""
        try:
            os.ftruncate(self._descriptor, self._end.offset)
        except OSError:
            # It stays behind the end of its segment, where it is torn.
            _close(self._finish_segment())
        if isinstance(error, OSError):
            raise spool_error(segment_path(self.path, self._end.segment), error) from error

    def _segments(self, first: int) -> dict[int, int]:
        """Return where each segment ends, from the one numbered `first` on."""
        with self._lock:
            found = self._finished.copy()
            if self._descriptor != _NONE:
                found[self._end.segment] = self._end.offset
        return {segment: size for segment, size in found.items() if segment >= first}

    def _sync_segment(self, segment: int) -> None:
        try:
            sync_path(segment_path(self.path, segment))
        except FileNotFoundError:
            # It may be settled meanwhile; if it is not, somebody has taken it away.
            if segment in self._segments(segment) and segment not in self._doubtful:
                raise
        except OSError as error:
            if error.errno in _REFUSALS:
                self._doubt(segment)
            raise

    def _doubt(self, segment: int) -> None:
        """Remember a segment that the disk refused, for it refuses only once, and go to another."""
        self._doubtful.add(segment)
        with self._lock:
            left = self._finish_segment() if segment == self._end.segment else _NONE
        _close(left)

    def _is_whole(self) -> bool:
        """Tell whether others find what is appended, where anything may be."""
        segment, is_open = self._end.segment, self._descriptor != _NONE
        has_segment = not is_open or segment_path(self.path, segment).exists()
        return not self._segment_bytes or (has_segment and (self.path / LOCK).exists())

    def _heal(self) -> None:
        """Put back what somebody has deleted, with the records of the segment that is open."""
        if not self._segment_bytes:
            return
        note, lock = self._note_descriptor, self._lock_descriptor
        is_new = restore_folder(self.path, lock, note, self._settled)
        with self._lock:
            is_new |= self._restore_segment()
            finished = list(self._finished)
        self._doubtful |= {each for each in finished if not self.holds(Position(each, 0))}
        if is_new:
            self._synced = _BEGINNING
            logger.warning("%s was deleted while it was in use: it is made again", self.path)

    def _restore_segment(self) -> bool:
        if self._descriptor == _NONE:
            return False
        if self._is_appending:
            raise SpoolError(self.path, "was deleted while a record was written to it")
        self._is_appending = True
        try:
            return restore_segment(self.path, self._end, self._descriptor)
        finally:
            self._is_appending = False

    def _sync_names(self, end: Position) -> None:
        if self._synced.segment < end.segment:
            sync_path(self.path)
        if self._synced == _BEGINNING:
            sync_path(self.path.parent)

    def _stop(self) -> None:
        with self._lock:
            self._segment_bytes = 0
            left = self._finish_segment()
        _close(left)

    def _remove(self) -> None:
        with self._sync_lock, explained(self.path):
            remove_folder(self.path)
            self._synced = self._end


def take_over(root: Path, target: str) -> Iterator[Spool]:
    """Take over the spools of dead processes that have the target, the oldest first.

    Each is locked as it is yielded, and the caller closes it. Spools that can't be opened are
    logged and left alone.
    """
    for path in spool_folders(root):
        try:
            spool = _take(path, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("%s: can't be taken over: %s", path, error.strerror)
            continue
        if spool is not None:
            yield spool


def _take(path: Path, target: str) -> Spool | None:
    found = target_of(path)
    if found is None and holds_nothing(path):
        remove_leftover(path)
    elif found is None:
        logger.warning("%s: is left alone, for its format is not known", path)
    elif found == target:
        lock = take_lock(path)
        return None if lock is None else _opened(path, lock, target, 0)
    return None


def _opened(path: Path, lock: int, target: str, segment_bytes: int) -> Spool:
    try:
        return Spool(path, lock, target, segment_bytes)
    except BaseException:
        os.close(lock)
        raise


def _close(descriptor: int) -> None:
    if descriptor != _NONE:
        with suppress(OSError):
            os.close(descriptor)
