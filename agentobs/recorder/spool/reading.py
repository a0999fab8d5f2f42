"""Reading frames back, past what is torn or damaged."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentobs.recorder.spool.folder import opened_for_reading, segment_path
from agentobs.recorder.spool.frames import (
    FRAME,
    HEADER,
    Frame,
    Position,
    is_torn,
    next_frame,
    payload_at,
    size_of_frame,
)

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("agentobs.recorder")

_WINDOW = 256 * 1024


@dataclass
class Reading:
    """What one call gathers from the segments of a spool, one after the other.

    The bounds are of frames, and of bytes of payload; the first frame is taken whatever its size.
    `damaged` are the places that were known to be damaged, and gets those that are found.
    """

    folder: Path
    max_frames: int
    max_bytes: int
    damaged: set[Position]
    frames: list[Frame] = field(default_factory=list)
    is_full: bool = False

    def read_segment(self, start: Position, limit: int) -> None:
        """Take the frames from `start` to the offset `limit`."""
        try:
            with opened_for_reading(segment_path(self.folder, start.segment)) as descriptor:
                self._read(descriptor, start, limit)
        except FileNotFoundError:
            self._report(start, "the segment is missing")

    def _read(self, descriptor: int, start: Position, limit: int) -> None:
        segment, offset = start
        window = _WINDOW
        while offset < limit and not self.is_full:
            data = os.pread(descriptor, min(window, limit - offset), offset)
            if not data:
                break
            is_rest = offset + len(data) >= limit
            passed = self._pass(data, Position(segment, offset), is_rest=is_rest)
            offset += passed
            # What begins here is cut by the window, or damaged, and then the next one is far.
            window = window if passed else window * 4

    def _pass(self, data: bytes, start: Position, *, is_rest: bool) -> int:
        """Take the frames in a piece of a segment; return how much of it is done with."""
        at = 0
        while at < len(data) and not self.is_full:
            place = Position(start.segment, start.offset + at)
            marker = FRAME if place.offset else HEADER
            payload = payload_at(data, at, marker)
            if payload is not None:
                at += self._take(payload, place)
            elif is_rest:
                at += self._pass_damage(data[at:], place, marker)
            else:
                break
        return at

    def _take(self, payload: bytes, place: Position) -> int:
        size = size_of_frame(payload)
        if place.offset == 0:
            return size
        self.max_bytes -= len(payload)
        if self.frames and self.max_bytes < 0:
            self.is_full = True
            return 0
        self.frames.append(Frame(place, Position(place.segment, place.offset + size), payload))
        self.is_full = len(self.frames) >= self.max_frames
        return size

    def _pass_damage(self, rest: bytes, place: Position, marker: bytes) -> int:
        """Return how much of a segment's rest, which begins with no sound frame, to leave out."""
        sound = next_frame(rest, 1)
        if sound is not None or not is_torn(rest, 0, marker):
            self._report(
                place, f"{len(rest) if sound is None else sound} bytes are damaged, and go unread"
            )
        return len(rest) if sound is None else sound

    def _report(self, place: Position, what: str) -> None:
        if place in self.damaged:
            return
        self.damaged.add(place)
        path = segment_path(self.folder, place.segment)
        logger.warning("%s at offset %d: %s", path, place.offset, what)
