"""Leaving the interpreter to other threads, in the middle of long work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Item = TypeVar("_Item")


# A thread that keeps the interpreter for the whole switch interval of 5 ms computes: it is no event
# loop that wants to go on soon, and would leave us little.
_LONG = 0.002
_MORE_BESIDE_BUSY = 4


def in_turns(items: Iterable[_Item], size: int) -> Iterator[_Item]:
    """Yield items, and after each `size` of them let the other threads go on.

    Without it a thread that wants to go on waits for the switch interval; an event loop of the
    host feels each.
    """
    left = size
    for item in items:
        yield item
        left -= 1
        if not left:
            left = size * _MORE_BESIDE_BUSY if _pause() > _LONG else size


def _pause() -> float:
    began = time.perf_counter()
    # To give the interpreter up is not enough: it would be had back before another thread is
    # awake. The system makes 50 microseconds of it.
    time.sleep(0.000_001)
    return time.perf_counter() - began
