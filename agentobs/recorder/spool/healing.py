"""What somebody deleted of a spool in use, put back from the files that are still open.

The open files are exchanged beneath their descriptors, which other threads use meanwhile.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agentobs.recorder.spool.folder import (
    LOCK,
    NOTE,
    leads_to,
    make_durable,
    make_lock_at_once,
    make_segment,
    open_note,
    segment_path,
    write_note,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.recorder.spool.frames import Position


def restore_folder(folder: Path, lock: int, note: int, settled: Position) -> bool:
    """Make the folder of a spool with its lock and note, where they are gone; tell if they were."""
    make_durable(folder)
    is_locked, is_noted = leads_to(folder / LOCK, lock), leads_to(folder / NOTE, note)
    if not is_locked:
        _exchange(lock, make_lock_at_once(folder))
    if not is_noted:
        _exchange(note, open_note(folder))
        write_note(note, settled)
    return not (is_locked and is_noted)


def restore_segment(folder: Path, place: Position, descriptor: int) -> bool:
    """Write a segment anew, to append behind `place` as before, where it is gone; tell if it was.

    Nobody may append meanwhile.
    """
    if leads_to(segment_path(folder, place.segment), descriptor):
        return False
    _exchange(descriptor, make_segment(folder, place.segment, _beginning(descriptor, place.offset)))
    return True


def _beginning(descriptor: int, size: int) -> bytes:
    data = os.pread(descriptor, size, 0)
    if len(data) < size:
        # Somebody has cut it off. What is appended must not come to stand elsewhere.
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return data


def _exchange(descriptor: int, other: int) -> None:
    """Let a descriptor lead to the file of another one, which is closed."""
    try:
        os.dup2(other, descriptor, inheritable=False)
    finally:
        os.close(other)
