"""A program that tries regular expressions on a text: see `patterns`, which runs it by its path.

It imports nothing but the standard library, so that it starts within some milliseconds.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

# What re.compile() raises for what it can't compile, and both for what is too large for them.
_FAULTS = (re.error, ValueError, OverflowError, RecursionError, MemoryError)


class _TooSlowError(BaseException):
    """The pattern has used up its time."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TooSlowError


def _outcome(pattern: str, order: dict[str, Any]) -> bool | str:
    """Return whether the pattern is found, or what is wrong with it."""
    try:
        # The engine looks for signals while it works. Processor time, so that other work on the
        # machine makes no pattern a slow one.
        signal.setitimer(signal.ITIMER_VIRTUAL, order["pattern_seconds"])
        try:
            return re.compile(pattern, order["flags"]).search(order["text"]) is not None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TooSlowError:
        return f"takes longer than {order['pattern_seconds']} s on this text"
    except _FAULTS as error:
        return f"is no regular expression: {str(error) or type(error).__name__}"


def _main() -> None:
    """Write a line for each pattern as soon as it is known: what is read survives a kill."""
    order = json.load(sys.stdin)
    signal.signal(signal.SIGVTALRM, _interrupt)
    for pattern in order["patterns"]:
        if time.process_time() > order["seconds"]:
            break
        sys.stdout.write(f"{json.dumps(_outcome(pattern, order))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
