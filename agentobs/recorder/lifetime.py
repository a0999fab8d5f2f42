"""A recorder in its process: from its start to its close, or to a fork."""

from __future__ import annotations

import threading
import time
from copy import copy
from typing import TYPE_CHECKING, Any

from agentobs.errors import AgentobsError, RecorderClosedError
from agentobs.recorder import lifecycle
from agentobs.recorder.intake import Intake
from agentobs.recorder.running import CloseReport, Running
from agentobs.recorder.statistics import Counters
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.recorder.statistics import Statistics
    from agentobs.settings import DatabaseSettings, RecorderSettings

_START_AGAIN_AFTER = 1.0


class Lifetime:
    """What a recorder has in this process: an intake, its counts, and the parts that run.

    `running` is None before the start and after the close. A forked child has all of it anew.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        database: DatabaseSettings | None,
        redact: Callable[[Any], Any] | None,
    ) -> None:
        self.settings = settings
        self.running: Running | None = None
        self._database = database
        self._redact = redact
        self._inherited: Running | None = None
        self._is_closed = False
        self._forget_exit: Callable[[], None] = lambda: None
        self._begin()
        lifecycle.watch(self)

    def _begin(self) -> None:
        self.counters = Counters()
        self.intake = Intake(
            self.settings.context_limit, self._redact, is_lenient=self.settings.lenient
        )
        self._start_lock, self._close_lock = threading.RLock(), threading.RLock()
        self._report = CloseReport({}, 0.0)
        # Why it could not start, and until when it does not try again by itself.
        self._fault: AgentobsError | None = None
        self._start_again_at = 0.0

    def start(self) -> None:
        """Start what is not running; raise ConfigurationError without an address."""
        with self._start_lock:
            if self.running is None:
                self._start()

    def _start(self) -> None:
        counters = Counters() if self._is_closed else self.counters
        try:
            database = read_settings() if self._database is None else self._database
            running = Running(self.settings, database, counters)
        except AgentobsError as error:
            # A copy, for the traceback of this one holds what was being recorded.
            self._fault = copy(error)
            self._start_again_at = time.monotonic() + _START_AGAIN_AFTER
            raise
        self.counters, self.running = counters, running
        self._is_closed, self._fault = False, None
        self._forget_exit = lifecycle.close_at_exit(self)

    def require_running(self) -> Running:
        """Return what runs, started if need be; raise RecorderClosedError after the close."""
        running = self.running
        return self._started() if running is None else running

    def _started(self) -> Running:
        with self._start_lock:
            if self._is_closed:
                raise RecorderClosedError(
                    "the recorder is closed: record within `with recorder:`, or start() it again"
                )
            # It was forked, or is used without a start.
            if self.running is None:
                self._start_by_itself()
            if self.running is None:
                raise RecorderClosedError("the recorder was closed while it started")
            return self.running

    def _start_by_itself(self) -> None:
        # Where that stops no host, each of its calls would pay for a start in vain.
        is_sparing = self.settings.lenient and time.monotonic() < self._start_again_at
        if is_sparing and self._fault is not None:
            raise copy(self._fault)
        self.start()

    def close(self, timeout: float | None = None) -> CloseReport:
        """Write what was taken, and end; report what is left."""
        # Who comes second waits for the first, and gets the same report.
        with self._close_lock:
            with self._start_lock:
                running, self.running = self.running, None
                self._is_closed = True
            if running is not None:
                self._forget_exit()
                limit = self.settings.close_timeout if timeout is None else timeout
                self._report = running.close(limit)
            return self._report

    def statistics(self) -> Statistics:
        """Return what was done since the start."""
        running = self.running
        return self.counters.snapshot({}) if running is None else running.statistics()

    def begin_anew(self) -> None:
        """Begin anew in a child: what was taken before is the parent's to write."""
        inherited, self.running = self.running, None
        self._begin()
        if inherited is not None:
            inherited.abandon()
            # Its sockets are the parent's too: to close them would end its session.
            self._inherited = inherited
