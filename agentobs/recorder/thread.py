"""The threads of a recorder: the writer's, with a loop of its own, and the one that syncs."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from agentobs.errors import SpoolError
from agentobs.recorder.waiters import Waiters, wake

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.recorder.spool.spool import Spool
    from agentobs.recorder.writing.writer import Writer

logger = logging.getLogger("agentobs.recorder")

# How often what was appended to the spool is made durable; half of what is promised, for the disk
# takes its time.
_SYNC_EVERY = 0.025


class WriterLoop(asyncio.SelectorEventLoop):
    """An event loop that looks names up in its own thread.

    asyncio hands them to a pool of threads, which takes no work any more while Python exits: and
    that is when the last rows of a short program are written.
    """

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 (asyncio's name)
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Look up a name."""
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class WriterThread:
    """The thread in which a writer runs, a daemon: who exits waits for it by `finish`."""

    def __init__(self, writer: Writer, on_progress: Callable[[], None]) -> None:
        self._writer = writer
        self._on_progress = on_progress
        self._loop = WriterLoop()
        self._timeout: asyncio.Timeout | None = None
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="agentobs recorder", daemon=True)
        self._has_ended = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the writer runs, and goes on."""
        return self._thread.is_alive() and not self._has_ended

    def wake(self) -> None:
        """Let the writer look at the buffer, where it waits."""
        # To call it costs a system call, in which another thread may take the interpreter.
        if self._writer.is_waiting:
            self._writer.is_waiting = False
            self._call(self._writer.wake)

    def flush_now(self) -> None:
        """Let the writer write what is there, without waiting for more."""
        self._call(lambda: self._writer.wake(is_urgent=True))

    def finish(self, timeout: float) -> bool:
        """Let the writer end what it has within `timeout` seconds; return whether it did."""
        self._deadline = time.monotonic() + timeout
        self._call(lambda: self._stop(timeout))
        # Some more, for the writer to tell what it could not do.
        self._thread.join(timeout + 1)
        return not self._thread.is_alive()

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop is closed: the writer has ended.
            return

    def _stop(self, timeout: float) -> None:
        self._writer.stop(timeout)
        if self._timeout is not None and self._deadline is not None:
            # The loop's clock is the monotonic one.
            self._timeout.reschedule(self._deadline)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._write())
        except Exception:
            # A fault of ours: the buffer fills up, and close() tells what is left.
            logger.exception("the writer of a recorder ended by an error")
        finally:
            self._has_ended = True
            self._on_progress()

    async def _write(self) -> None:
        self._writer.on_progress = self._on_progress
        try:
            async with asyncio.timeout(None) as self._timeout:
                if self._deadline is not None:
                    self._timeout.reschedule(self._deadline)
                await self._writer.run()
        except TimeoutError:
            logger.warning("the recorder was closed before everything was written")
        await self._writer.close()


class SyncThread:
    """The thread that makes a spool outlive a loss of power, soon after each record."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._fault: SpoolError | None = None
        self._asking = Waiters(threading.RLock())
        self._must_look = threading.Event()
        self._is_stopping = self._has_ended = False
        self._thread = threading.Thread(
            target=self._run, name="agentobs recorder sync", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def synced(self) -> None:
        """Wait until what is in the spool is durable; raise SpoolError where it can't be."""
        if self._spool.is_synced:
            return
        waiter = self._asking.add()
        self._must_look.set()
        if self._has_ended:
            # It may have looked for the last time before: then the last sync is the answer.
            self._answer()
        await self._asking.until_woken(waiter)

    def finish(self) -> None:
        """Sync for the last time, and end."""
        self._is_stopping = True
        self._must_look.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            self._must_look.wait(_SYNC_EVERY)
            self._must_look.clear()
            self._sync()
        self._sync()
        self._has_ended = True
        self._answer()

    def _sync(self) -> None:
        # Before the sync: what is asked for meanwhile may not be in it.
        asking = self._asking.take(math.inf)
        try:
            self._spool.sync()
        except Exception as error:  # noqa: BLE001 (who asked must be told, and the next records come)
            self._note(error)
        else:
            self._fault = None
        wake(asking, self._fault)

    def _note(self, error: Exception) -> None:
        is_new = self._fault is None
        name = type(error).__name__
        self._fault = error if isinstance(error, SpoolError) else SpoolError(self._spool.path, name)
        if is_new:
            logger.warning("the spool can't be made durable: %s", self._fault)

    def _answer(self) -> None:
        wake(self._asking.take(math.inf), self._fault)
