"""What stands in a segment of a spool: frames, one behind the other.

A frame is a marker, the payload's length, a checksum, and the payload. The first frame of a segment
has a marker of its own and holds the target. A marker holds a byte that is in no UTF-8 text, so
that behind damage the next frame can be found.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

MAX_PAYLOAD = 2**30
"""The most bytes of a payload: Linux writes a little less than twice that at once."""

FRAME = b"\xffAF1"
"""What the frame of a record begins with."""

HEADER = b"\xffAS1"
"""What a segment begins with; a later format has another one."""

_HEAD = struct.Struct("<4sII")
# zlib lets the interpreter lock go for more than 5 KiB, and a busy thread keeps it for 5 ms.
_CHECKSUM_AT_ONCE = 5 * 1024


class Position(NamedTuple):
    """A place in a spool; later places are greater."""

    segment: int
    offset: int


class Frame(NamedTuple):
    """A payload, and where its frame begins and ends."""

    position: Position
    end: Position
    payload: bytes


def encode_frame(payload: bytes, marker: bytes = FRAME) -> bytes:
    """Return the bytes of a frame."""
    length = len(payload)
    # As _checksum does, without a call: every record pays for it.
    is_short = length <= _CHECKSUM_AT_ONCE
    checksum = crc32(payload, length) if is_short else _checksum(payload)
    return _HEAD.pack(marker, length, checksum) + payload


def payload_at(data: bytes, at: int, marker: bytes = FRAME) -> bytes | None:
    """Return the payload of the frame that begins at `at`, or None if no sound one does."""
    begin = at + _HEAD.size
    if begin > len(data):
        return None
    found, length, checksum = _HEAD.unpack_from(data, at)
    if found != marker or length > len(data) - begin:
        return None
    payload = data[begin : begin + length]
    return payload if _checksum(payload) == checksum else None


def size_of_frame(payload: bytes) -> int:
    """Return how many bytes the frame of a payload has."""
    return _HEAD.size + len(payload)


def is_torn(data: bytes, at: int, marker: bytes = FRAME) -> bool:
    """Tell whether a frame begins at `at` that `data` does not hold to its end."""
    head = data[at : at + _HEAD.size]
    if not marker.startswith(head[: len(marker)]):
        return False
    return len(head) < _HEAD.size or _HEAD.unpack(head)[1] > len(data) - at - _HEAD.size


def next_frame(data: bytes, at: int) -> int | None:
    """Return where the first sound frame from `at` on begins, or None if there is none."""
    found = data.find(FRAME, at)
    while found >= 0 and payload_at(data, found) is None:
        found = data.find(FRAME, found + 1)
    return found if found >= 0 else None


def _checksum(payload: bytes) -> int:
    # The sum starts from the length, so that it covers that too.
    length = checksum = len(payload)
    if length <= _CHECKSUM_AT_ONCE:
        return crc32(payload, checksum)
    view = memoryview(payload)
    for start in range(0, length, _CHECKSUM_AT_ONCE):
        checksum = crc32(view[start : start + _CHECKSUM_AT_ONCE], checksum)
    return checksum
