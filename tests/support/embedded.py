"""Folders, users and processes for the tests of the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agentobs.embedded import EmbeddedServer

FAST = {"fsync": "off"}
REPOSITORY = Path(__file__).parents[2]
USER_SCRIPT = Path(__file__).with_name("embedded_user.py")
PATIENCE_SECONDS = 15.0

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root gives up its rights")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return what runs for a data folder: its name is in the arguments, or is the directory."""
    return [
        process
        for process in psutil.process_iter()
        if any(str(folder) in place for place in _places(process))
    ]


def keepers_of(folder: Path) -> list[psutil.Process]:
    return [each for each in processes_of(folder) if "agentobs.embedded" in _places(each)]


def keeper_of(folder: Path) -> psutil.Process:
    (keeper,) = keepers_of(folder)
    return keeper


def _places(process: psutil.Process) -> list[str]:
    # A process may end between any two looks at it, and a stranger's is not ours to look at.
    try:
        return [*process.cmdline(), process.cwd()]
    except psutil.Error:
        return []


def kill_and_wait(process: psutil.Process) -> None:
    process.kill()
    wait_until(lambda: _is_dead(process))


def _is_dead(process: psutil.Process) -> bool:
    try:
        # The entry of an orphan stays until init looks at it.
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def query(server: EmbeddedServer, statement: str) -> str:
    command = [str(server.binary("psql")), "-X", "-At", "-v", "ON_ERROR_STOP=1", server.url]
    result = subprocess.run(
        [*command, "-c", statement], capture_output=True, check=False, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


class Ready(NamedTuple):
    started: bool
    pid: int


class User:
    """A process that uses the server; `wait_ready` returns what it found."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_ready(self) -> Ready:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().split()
        assert answer[:1] == ["ready"], self.process.communicate()
        return Ready(answer[1] == "True", int(answer[2]))

    def leave(self) -> None:
        _, complaint = self.process.communicate()
        assert self.process.returncode == 0, complaint


@contextmanager
def user_of(
    folder: Path | None,
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    process_options: Mapping[str, Any] | None = None,
    script: Path = USER_SCRIPT,
) -> Iterator[User]:
    with subprocess.Popen(
        [python, str(script), *([str(folder)] if folder else [])],
        cwd="/",
        env=environment or {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **(process_options or {}),
    ) as process:
        try:
            yield User(process)
        finally:
            process.kill()
            process.communicate()
