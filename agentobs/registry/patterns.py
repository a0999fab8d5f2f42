r"""Regular expressions of any origin against a text, without a risk for whoever asks.

They are Python's, as the registry accepts them (`\b` is a word's end in Python, and a backspace in
PostgreSQL, whose `~` also ends the transaction at the first broken one). Python's engine can't be
stopped from within the process that it runs in, and holds up all of its threads: so it runs in
another process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentobs.errors import ConfigurationError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORKER = Path(__file__).with_name("pattern_worker.py")

# What an interpreter needs to start. The rest may hold secrets, and the patterns are anybody's.
_NEEDED = ("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
# Beside processor time, a machine that is busy elsewhere needs time of the clock.
_GRACE_SECONDS = 10.0
_MOST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PatternBounds:
    """How much processor time one pattern may take, and all of them, in seconds.

    Raises InvalidValueError for what is no time.
    """

    pattern_seconds: float = 0.05
    seconds: float = 2.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value <= _MOST_SECONDS:
                raise InvalidValueError(
                    f"bounds.{name}", f"must be above 0 and at most {_MOST_SECONDS}"
                )


def try_patterns(
    patterns: Sequence[str], text: str, bounds: PatternBounds, *, ignore_case: bool
) -> list[bool | str]:
    """Return of each pattern whether it is found in the text, or what is wrong with it.

    Waits for another process; raises ConfigurationError where that can't be started.
    """
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    order = {"text": text, "patterns": patterns, "flags": int(flags), **asdict(bounds)}
    lines = _run(json.dumps(order).encode(), bounds.seconds + _GRACE_SECONDS)
    told: list[bool | str] = [json.loads(line) for line in lines if line.endswith(b"\n")]
    missing = len(patterns) - len(told)
    return told + [f"was not tried: all together took longer than {bounds.seconds} s"] * missing


def _run(order: bytes, seconds: float) -> list[bytes]:
    # Isolated from the host's environment and without its site-packages, which cost time only.
    # A host that is no plain interpreter tells multiprocessing which one is.
    command: list[Any] = [get_executable(), "-I", "-S", "-W", "ignore", _WORKER]
    needed = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    try:
        output = subprocess.run(
            command, input=order, env=needed, capture_output=True, check=False, timeout=seconds
        ).stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    except OSError as error:
        raise ConfigurationError(
            "trigger patterns are tried by a Python process of their own, which did not start "
            f"({error}): name an interpreter by multiprocessing.set_executable()"
        ) from error
    return output.splitlines(keepends=True)
