"""The parts of a recorder between its start and its end."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platformdirs import user_state_path

from agentobs.errors import BarrierTimeoutError
from agentobs.recorder.buffer import Buffer
from agentobs.recorder.dead_letters import DeadLetters
from agentobs.recorder.delivery import Delivery, bury
from agentobs.recorder.open_runs import OpenRuns
from agentobs.recorder.replay import Replay
from agentobs.recorder.spool import Spool
from agentobs.recorder.thread import SyncThread, WriterThread
from agentobs.recorder.writer import Writer
from agentobs.sessions.address import database_address

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.statistics import Counters, Statistics
    from agentobs.settings import DatabaseSettings, RecorderSettings

logger = logging.getLogger("agentobs.recorder")

_LEFT_REASON = "the recorder was closed before the database took it"


@dataclass(frozen=True)
class CloseReport:
    """What a recorder left when it was closed.

    `left` counts by kind what was not written in time; it is in the spool, for the next process,
    where there is one, else in the dead-letter file at `dead_letters`.
    """

    left: dict[str, int]
    seconds: float
    spool: Path | None = None
    dead_letters: Path | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything was written."""
        return not self.left


class Running:
    """A buffer, its writer, and where they keep what can't be written now.

    Belongs to the process that made it. Raises ConfigurationError for a missing address, and
    SpoolError where the spool can't be made.
    """

    def __init__(
        self, settings: RecorderSettings, database: DatabaseSettings, counters: Counters
    ) -> None:
        folder = folder_of(settings)
        target = _target(database)
        is_spooling = settings.delivery == "spool"
        self.settings = settings
        self.counters = counters
        self.spool = Spool.create(folder / "spools", target) if is_spooling else None
        self.buffer = Buffer(settings, self.counters, self.spool, self._wake)
        self.open_runs = OpenRuns(self.buffer.lock)
        self.dead_letters = DeadLetters(folder / "dead-letters")
        self._replay = Replay(folder / "spools", target, self.buffer) if is_spooling else None
        self.writer = Writer(
            self.buffer,
            self.open_runs,
            Delivery(database),
            settings,
            dead_letters=self.dead_letters,
            replay=self._replay,
        )
        self._reported = self.counters.snapshot({})
        self._report_at = time.monotonic() + settings.report_interval
        self._progress = threading.Condition(self.buffer.lock)
        self._thread = WriterThread(self.writer, self._tell_progress)
        self._sync = None if self.spool is None else SyncThread(self.spool)
        self._thread.start()
        if self._sync is not None:
            self._sync.start()

    @property
    def is_replaying(self) -> bool:
        """Whether there may be spools of dead processes that are not written yet."""
        return self._replay is not None and not self._replay.is_idle

    def barrier(self, timeout: float | None) -> None:
        """Wait until what was accepted is safe: synced to the spool, or committed."""
        if self.spool is not None:
            self.spool.sync()
            if not self.counters.single["unspooled"]:
                return
        with self._progress:
            last = self.buffer.sequence
            self._thread.flush_now()
            self._progress.wait_for(
                lambda: self._is_settled(last) or not self._thread.is_alive, timeout
            )
            if not self._is_settled(last):
                pending = self._pending()
                raise BarrierTimeoutError(
                    f"{pending} records are not committed yet: look whether the database takes "
                    "rows, or wait longer",
                    pending=pending,
                )

    def statistics(self) -> Statistics:
        """Return what was done so far."""
        with self.buffer.lock:
            return self.counters.snapshot(
                {
                    "buffer_rows": len(self.buffer),
                    "buffer_bytes": self.buffer.bytes,
                    "spool_bytes": 0 if self.spool is None else self.spool.size,
                    "reconnected": max(0, self.writer.connections - 1),
                }
            )

    def close(self, timeout: float) -> CloseReport:
        """End the threads; what is not written by then is kept, counted and reported."""
        began = time.monotonic()
        self.buffer.wake_all()
        self._thread.finish(timeout)
        left = [*self.writer.unsettled(), *self.buffer.take_all()]
        if self._sync is not None:
            self._sync.finish()
        if self.spool is not None:
            # What could not be spooled is in memory only.
            left = [entry for entry in left if entry.spool is None]
            self.spool.close()
        is_kept = bury(self.dead_letters, [(entry, _LEFT_REASON, None) for entry in left])
        return self._report(time.monotonic() - began, lost=[] if is_kept else left)

    def abandon(self) -> None:
        """Let go of everything in a child that was forked: it is all the parent's."""
        if self.spool is not None:
            self.spool.abandon()

    def _report(self, seconds: float, lost: list[Entry]) -> CloseReport:
        with self.buffer.lock:
            left = {kind: number for kind, number in self.counters.open().items() if number}
            for entry in lost:
                for each in entry.kinds:
                    self.counters.count("lost", each)
            for kind, number in self.counters.open().items():
                if number:
                    self.counters.by_kind["abandoned"][kind] += number
        if left:
            told = ", ".join(f"{number} {kind}" for kind, number in left.items())
            logger.warning("a recorder was closed and left: %s", told)
        return CloseReport(
            left,
            seconds,
            spool=self.spool.path if left and self.spool is not None else None,
            dead_letters=None if lost else self.dead_letters.path,
        )

    def _pending(self) -> int:
        return sum(self.counters.open().values())

    def _is_settled(self, sequence: int) -> bool:
        return self.writer.first_sequence > sequence

    def _wake(self) -> None:
        self._thread.wake()

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()
        interval = self.settings.report_interval
        if interval and time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + interval
            self._log_statistics()

    def _log_statistics(self) -> None:
        statistics = self.statistics()
        news, self._reported = statistics.since(self._reported), statistics
        if news.has_counted or statistics.pending:
            logger.info("in %g s: %s", self.settings.report_interval, news)


def folder_of(settings: RecorderSettings) -> Path:
    """Return where spools and dead letters are."""
    return settings.folder or user_state_path("agentobs") / "recorder"


def _target(database: DatabaseSettings) -> str:
    """Name the database and the schema, for spools to go nowhere else."""
    address = database_address(database)
    return f"{address.place} {database.schema_name or ''}".strip()
