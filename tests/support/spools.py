"""Spools to look into."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from agentobs.recorder.spool.spool import Frame, Position, Spool, take_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEGINNING = Position(0, 0)
MEGABYTE = 2**20


@contextmanager
def spool_with(
    root: Path, *payloads: bytes, target: str = "here", segment_bytes: int = MEGABYTE
) -> Iterator[Spool]:
    spool = Spool.create(root, target, segment_bytes=segment_bytes)
    for payload in payloads:
        spool.append(payload)
    try:
        yield spool
    finally:
        spool.close()


def left_behind(
    root: Path, *payloads: bytes, target: str = "here", segment_bytes: int = MEGABYTE
) -> Path:
    """Leave a spool as a dead process does; return its folder."""
    with spool_with(root, *payloads, target=target, segment_bytes=segment_bytes) as spool:
        return spool.path


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def frames_of(spool: Spool, start: Position = BEGINNING) -> list[Frame]:
    return spool.read(start, 1_000_000, 2**30)


def payloads_of(spool: Spool, start: Position = BEGINNING) -> list[bytes]:
    return [frame.payload for frame in frames_of(spool, start)]


def replayed(root: Path) -> tuple[list[bytes], int]:
    """Return what a successor reads, and how much damage it meets; it settles nothing."""
    (spool,) = take_over(root, "here")
    try:
        return payloads_of(spool), spool.damaged
    finally:
        spool.close()
