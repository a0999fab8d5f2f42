"""The keeper: a detached process that stops the server when its last user is gone.

It waits in the kernel for users.lock and uses no time meanwhile.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agentobs.embedded import locks, postmaster
from agentobs.embedded.detached import spawn_detached
from agentobs.embedded.layout import Layout, layout_of
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WATCHING = b"watching"
# What Python needs to start: the keeper outlives its starter, whose secrets may be in the rest.
_NEEDED = (
    "DYLD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH",
    "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPYCACHEPREFIX", "PYTHONUTF8", "TMPDIR",
)  # fmt: skip


class KeeperError(EmbeddedServerError):
    """The keeper did not come up, so nobody would stop the server after use."""


@contextmanager
def kept(layout: Layout) -> Iterator[None]:
    """Start a keeper unless one lives; at the end of the block it is known to watch.

    The caller holds users.lock.
    """
    answers = _spawn(layout)
    if answers is None:
        yield
        return
    with os.fdopen(answers, "rb") as pipe:
        yield
        # Its death closes the pipe, so the wait ends either way.
        answer = pipe.read()
    if answer != _WATCHING:
        raise KeeperError(
            f"the process that stops the server after use did not start ({sys.executable}): "
            f"{answer.decode(errors='replace').strip()}. Set AGENTOBS_DATABASE_URL to a server "
            "of yours"
        )


def _spawn(layout: Layout) -> int | None:
    """Return the pipe on which a new keeper reports."""
    with locks.opened(layout.keeper_lock, layout.account) as lock:
        if not locks.try_exclusive(lock):
            return None
        answers, output = os.pipe()
        try:
            # It inherits its lock held, so that there is no moment without a holder.
            spawn_detached(
                _command(layout, lock),
                environment=_environment(),
                inherited=lock,
                output=output,
                process_options={},
            )
        finally:
            os.close(output)
        return answers


def keep(data_directory: Path, *, keeper_lock: int) -> None:
    """Stay until nobody is left, stop the server unless it is to stay, and end."""
    layout = layout_of(data_directory)
    with locks.opened(layout.users_lock) as users, locks.opened(layout.start_lock) as start:
        _announce()
        while not _leave(layout, users=users, start=start, keeper_lock=keeper_lock):
            pass


def _leave(layout: Layout, *, users: int, start: int, keeper_lock: int) -> bool:
    locks.wait_exclusive(users)
    # A user takes start.lock first: to wait for that one with this one in hand would deadlock.
    locks.release(users)
    locks.wait_exclusive(start)
    try:
        if not locks.try_exclusive(users):
            return False
        try:
            if not layout.persistent_marker.exists():
                postmaster.stop(layout)
        finally:
            # Before start.lock: the next user must not take this process for a keeper that stays.
            os.close(keeper_lock)
        return True
    finally:
        locks.release(users)
        locks.release(start)


def _announce() -> None:
    # The starter may be dead already, which is what this process is for.
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), _WATCHING)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _command(layout: Layout, lock: int) -> list[str]:
    if not sys.executable:
        raise KeeperError(
            "this program does not say where its Python is (sys.executable is empty), so the "
            "embedded PostgreSQL can't be watched: set AGENTOBS_DATABASE_URL to a server of yours"
        )
    # -P: the working directory is not searched for modules.
    return [sys.executable, "-P", "-m", "agentobs.embedded", str(layout.data_directory), str(lock)]


def _environment() -> dict[str, str]:
    # The keeper must find the same modules as its starter, whatever that did to sys.path.
    search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return {**kept, "PYTHONPATH": search}
