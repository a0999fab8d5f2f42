"""A command that is over before its caller is, whoever ends them."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType


def unwind_when_ended() -> None:
    """Make exceptions of the signals that end this process: what it started is stopped then."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _leave)
    # A shell ignores it for what it starts in the background, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run it to its end, and return its exit code."""
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal sends it to the command too, and pytest cleans up after it.
            process.wait()
            raise
        except SystemExit:
            process.send_signal(signal.SIGINT)
            raise


def _leave(number: int, _frame: FrameType | None) -> None:
    # What a shell reports of a process that a signal ended.
    raise SystemExit(128 + number)
