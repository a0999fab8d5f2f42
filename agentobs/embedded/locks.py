"""flock in four verbs.

A lock belongs to one opening of the file: two threads that open it exclude each other, and a
process that inherits the descriptor shares the lock. It ends when the last such descriptor is
closed, so a lock that was handed to another process is let go by `os.close`, never by LOCK_UN.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentobs.embedded.account import Account


def open_lock(path: Path, owner: Account | None = None) -> int:
    """Open a lock file; with `owner` it is made where it is missing."""
    # root opens it in a folder of a lesser user: a symbolic link there leads nowhere.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    if owner is None:
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    owner.own(descriptor)
    return descriptor


def wait_exclusive(descriptor: int) -> None:
    """Wait until nobody else holds the lock."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def wait_shared(descriptor: int) -> None:
    """Wait until nobody holds the lock exclusively."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def release(descriptor: int) -> None:
    """Let a lock go and keep its file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def try_exclusive(descriptor: int) -> bool:
    """Take the lock if that needs no waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def opened(path: Path, owner: Account | None = None) -> Iterator[int]:
    """Open a lock file for the block; its end closes it, and so ends the lock."""
    descriptor = open_lock(path, owner)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, owner: Account) -> Iterator[None]:
    """Hold the lock for the block."""
    with opened(path, owner) as descriptor:
        wait_exclusive(descriptor)
        yield


def is_free(path: Path) -> bool:
    """Tell whether nobody holds the lock."""
    try:
        with opened(path) as descriptor:
            return try_exclusive(descriptor)
    except FileNotFoundError:
        return True
