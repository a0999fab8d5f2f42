"""What happens to a recorder when its process forks, gets a signal, or ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from multiprocessing import util
from threading import Event, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Among the finalizers of a process that multiprocessing started, after those of its queues.
_PRIORITY = 5
_SEND_AGAIN = 1.0


class Closable(Protocol):
    """What is closed when its process ends."""

    def close(self) -> Any:
        """Close it."""

    def begin_anew(self) -> None:
        """Begin anew in a child."""


def watch(recorder: Closable) -> None:
    """Let the recorder begin anew in a child that is forked."""
    watched = ref(recorder)

    def in_child() -> None:
        if (found := watched()) is not None:
            found.begin_anew()

    os.register_at_fork(after_in_child=in_child)


def close_at_exit(recorder: Closable) -> Callable[[], None]:
    """Close the recorder when Python exits; return what takes that back.

    Until then it lives: a host that lets go of it has not said that its rows may go, too.
    """

    def at_exit() -> None:
        recorder.close()

    if multiprocessing.parent_process() is None:
        atexit.register(at_exit)
        return lambda: atexit.unregister(at_exit)
    # Such a process ends by os._exit(), without Python's own finalizers.
    return util.Finalize(None, at_exit, exitpriority=_PRIORITY).cancel


def close_on_signals(recorder: Closable, signals: tuple[signal.Signals, ...]) -> None:
    """Close the recorder on these signals, and then do what the process did on them before."""
    owner = ref(recorder)
    for number in signals:
        signal.signal(number, _ClosingHandler(owner, signal.getsignal(number)))


class _ClosingHandler:
    """What closes a recorder on a signal, and passes the signal on then.

    A thread of its own closes: what the signal interrupts may hold the locks that this takes. Who
    sends the signal again does not want to wait for it.
    """

    def __init__(self, owner: Callable[[], Closable | None], before: Any) -> None:
        self._owner = owner
        self._before = before
        self._closer: Thread | None = None
        self._is_back = Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        recorder = self._owner()
        if self._closer is not None or recorder is None:
            self._closer = None
            self._is_back.set()
            self._pass_on(number, frame)
            return
        self._is_back.clear()
        # Not a daemon: Python waits for it when the main thread ends meanwhile.
        self._closer = Thread(
            target=self._close, args=(recorder, number), name="agentobs recorder close"
        )
        self._closer.start()

    def _close(self, recorder: Closable, number: int) -> None:
        try:
            recorder.close()
        finally:
            while self._closer is current_thread():
                # It comes back to the handler, in the main thread, as the host's expects. One that
                # comes in the moment before a system call is noticed only when that returns.
                signal.pthread_kill(main_thread().ident or 0, number)
                self._is_back.wait(_SEND_AGAIN)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            # The default of the system, which ends the process: None is that of C code.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
