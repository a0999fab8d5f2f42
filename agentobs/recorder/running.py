"""The parts of a recorder between its start and its end."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platformdirs import user_state_path

from agentobs.errors import BarrierTimeoutError, SpoolError
from agentobs.recorder.buffer import Buffer
from agentobs.recorder.dead_letters.writing import DeadLetters
from agentobs.recorder.open_runs import OpenRuns
from agentobs.recorder.spool.spool import Spool
from agentobs.recorder.thread import SyncThread, WriterThread
from agentobs.recorder.waiters import Waiters, wake
from agentobs.recorder.writing.delivery import Delivery, bury
from agentobs.recorder.writing.replay import Replay
from agentobs.recorder.writing.writer import Writer
from agentobs.sessions.address import database_address

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.statistics import Counters, Statistics
    from agentobs.settings import DatabaseSettings, RecorderSettings

logger = logging.getLogger("agentobs.recorder")

_PORT = 5432
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

    Belongs to the process that made it. `replayed` is the target whose spools it takes over, its
    own unless given. Raises ConfigurationError for a missing address, and SpoolError where the
    spool can't be made.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        database: DatabaseSettings,
        counters: Counters,
        *,
        replayed: str | None = None,
    ) -> None:
        folder = folder_of(settings)
        target = target_of(database)
        is_spooling = settings.delivery == "spool"
        self.settings = settings
        self.counters = counters
        # Before anything is made that would be left behind where this raises.
        delivery = Delivery(database)
        self.spool = Spool.create(folder / "spools", target) if is_spooling else None
        self.buffer = Buffer(settings, self.counters, self.spool, self._wake)
        self.open_runs = OpenRuns(self.buffer.lock)
        self.dead_letters = DeadLetters(folder / "dead-letters")
        left_by = replayed or target
        self._replay = Replay(folder / "spools", left_by, self.buffer) if is_spooling else None
        self.writer = Writer(
            self.buffer,
            self.open_runs,
            delivery,
            settings,
            dead_letters=self.dead_letters,
            replay=self._replay,
        )
        self._reported = self.counters.snapshot({})
        self._reported_at = time.monotonic()
        self._progress = threading.Condition(self.buffer.lock)
        self._waiters = Waiters(self.buffer.lock)
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
        with self._progress:
            last = self._last_to_commit()
            if self._is_settled(last):
                return
            self._thread.flush_now()
            self._progress.wait_for(lambda: self._has_answer(last), timeout)
            if not self._is_settled(last):
                raise self._in_vain()

    async def abarrier(self, timeout: float | None) -> None:  # noqa: ASYNC109 (another error tells it)
        """Wait as `barrier` does, in any event loop, and without a thread."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if await self._is_safe():
                    return
        raise self._in_vain()

    async def _is_safe(self) -> bool:
        """Wait for it; return False where the writer ended before."""
        if self._sync is not None:
            await self._sync.synced()
        with self.buffer.lock:
            last = self._last_to_commit()
            if self._is_settled(last):
                return True
            self._thread.flush_now()
            waiter = None if self._has_answer(last) else self._waiters.add(last)
        if waiter is not None:
            await self._waiters.until_woken(waiter)
        return self._is_settled(last)

    def _last_to_commit(self) -> int:
        """Return the number of the last record that nothing but a commit makes safe."""
        return self.buffer.sequence if self.spool is None else self.buffer.last_unspooled

    def _in_vain(self) -> BarrierTimeoutError:
        pending = self._pending()
        return BarrierTimeoutError(
            f"not committed yet: {pending} of the records; look whether the database takes "
            "rows, or wait longer: what names a row of another process waits for it "
            "(parent_wait, outcome_wait)",
            pending=pending,
        )

    def statistics(self) -> Statistics:
        """Return what was done so far."""
        with self.buffer.lock:
            return self.counters.snapshot(
                {
                    "buffer_rows": len(self.buffer),
                    "buffer_bytes": self.buffer.bytes,
                    "held_rows": sum(map(len, self.writer.held)),
                    "held_bytes": sum(held.bytes for held in self.writer.held),
                    "open_runs": len(self.open_runs),
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
        report_left = self._left()
        if self.spool is not None:
            # What could not be spooled is in memory only, and so is what somebody has deleted.
            left = [entry for entry in left if not _is_in_spool(entry)]
            self._close_spool(self.spool)
        is_kept = bury(self.dead_letters, [(entry, _LEFT_REASON, None) for entry in left])
        self._count_left(left, "abandoned" if is_kept else "lost")
        self._count_spooled()
        return self._report(time.monotonic() - began, report_left, is_kept=is_kept)

    def abandon(self) -> None:
        """Let go of everything in a child that was forked: it is all the parent's."""
        if self.spool is not None:
            self.spool.abandon()

    def _left(self) -> dict[str, int]:
        with self.buffer.lock:
            return {str(kind): number for kind, number in self.counters.open().items() if number}

    def _count_left(self, entries: list[Entry], what: str) -> None:
        """Count what is in no spool."""
        with self.buffer.lock:
            for entry in entries:
                for kind in entry.kinds:
                    self.counters.count(what, kind)
                    if entry.is_replayed:
                        # Accepted by the process whose spool it was in.
                        self.counters.count("replayed", kind)

    def _count_spooled(self) -> None:
        """Count what is left to the next process; a spool that is gone held nothing to read."""
        if self.spool is not None:
            what = "spooled" if self.spool.path.exists() else "lost"
            with self.buffer.lock:
                for kind, number in (+self.counters.open()).items():
                    self.counters.by_kind[what][kind] += number

    def _close_spool(self, spool: Spool) -> None:
        try:
            spool.close()
        except SpoolError as error:
            # What is to be kept elsewhere must be, all the same.
            logger.warning("the spool can't be closed: %s", error)

    def _report(self, seconds: float, left: dict[str, int], *, is_kept: bool) -> CloseReport:
        if left:
            told = ", ".join(f"{number} {kind}" for kind, number in left.items())
            logger.warning("a recorder was closed and left: %s", told)
        is_spooled = self.spool is not None and self.spool.path.exists()
        return CloseReport(
            left,
            seconds,
            spool=self.spool.path if left and self.spool is not None and is_spooled else None,
            dead_letters=self.dead_letters.path if is_kept else None,
        )

    def _pending(self) -> int:
        return sum(self.counters.open().values())

    def _is_settled(self, sequence: int) -> bool:
        return self.writer.first_sequence > sequence

    def _has_answer(self, sequence: int) -> bool:
        return self._is_settled(sequence) or not self._thread.is_alive

    def _wake(self) -> None:
        self._thread.wake()

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()
            passed = self.writer.first_sequence if self._thread.is_alive else math.inf
            waiters = self._waiters.take(passed)
        wake(waiters)
        interval, now = self.settings.report_interval, time.monotonic()
        if interval and now >= self._reported_at + interval:
            seconds, self._reported_at = now - self._reported_at, now
            self._log_statistics(seconds)

    def _log_statistics(self, seconds: float) -> None:
        statistics = self.statistics()
        news, self._reported = statistics.since(self._reported), statistics
        if news.has_counted or statistics.pending:
            level = logging.WARNING if news.has_lost else logging.INFO
            logger.log(level, "in %.3g s: %s", seconds, news)


def _is_in_spool(entry: Entry) -> bool:
    return bool(entry.spool and entry.position and entry.spool.holds(entry.position))


def folder_of(settings: RecorderSettings) -> Path:
    """Return where spools and dead letters are."""
    return settings.folder or user_state_path("agentobs") / "recorder"


def target_of(database: DatabaseSettings) -> str:
    """Name the database and the schema, for spools to go nowhere else.

    Without the user, who may change with each start, and however the address is spelt.
    """
    address = database_address(database)
    hosts = address.arguments.get("host") or ["localhost"]
    ports = address.arguments.get("port") or [_PORT] * len(hosts)
    places = zip(hosts, ports, strict=False)
    shown = sorted(f"{str(host).lower().rstrip('.')}:{port}" for host, port in places)
    name = address.url.database or address.url.username or ""
    return f"{','.join(shown)}/{name} {database.schema_name or 'public'}"
