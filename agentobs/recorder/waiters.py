"""Coroutines, of any event loop, that wait for a thread of the recorder."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Iterable

    from agentobs.errors import AgentobsError

    Waiter = Future[AgentobsError | None]


class Waiters:
    """Who waits, each until a number is passed.

    The lock is that of whoever wakes them: who holds it can look, and then add a waiter.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._numbers: dict[Waiter, int] = {}

    def add(self, number: int = 0) -> Waiter:
        """Add a waiter of the event loop that runs here, for `until_woken`."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            self._numbers[waiter] = number
        return waiter

    async def until_woken(self, waiter: Waiter) -> None:
        """Wait; raise the error that it is woken with. Of one that is cancelled nothing stays."""
        try:
            error = await waiter
        finally:
            with self._lock:
                self._numbers.pop(waiter, None)
        if error is not None:
            # Each raises one of its own, for a traceback grows with each raise.
            raise copy(error)

    def take(self, passed: float) -> list[Waiter]:
        """Remove and return those whose number is passed, for `wake`."""
        with self._lock:
            taken = [waiter for waiter, number in self._numbers.items() if number < passed]
            for waiter in taken:
                del self._numbers[waiter]
        return taken


def wake(waiters: Iterable[Waiter], error: AgentobsError | None = None) -> None:
    """Wake them, each in its event loop; called from any thread."""
    by_loop: defaultdict[AbstractEventLoop, list[Waiter]] = defaultdict(list)
    for waiter in waiters:
        by_loop[waiter.get_loop()].append(waiter)
    for loop, theirs in by_loop.items():
        # In a loop that is closed nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, theirs, error)


def _settle(waiters: list[Waiter], error: AgentobsError | None) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(error)
