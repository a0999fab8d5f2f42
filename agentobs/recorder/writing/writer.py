"""The writer: takes what is in the buffer, in batches, and brings it to the database."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from agentobs.errors import (
    AgentobsError,
    DatabaseError,
    SpoolError,
    StatementTimeoutError,
)
from agentobs.recorder.entries import Entry, Kind
from agentobs.recorder.writing.batch import Batch, in_order
from agentobs.recorder.writing.composer import Composer
from agentobs.recorder.writing.delivery import Delivered, bury
from agentobs.recorder.writing.others import Others, is_outage, is_overdue
from agentobs.recorder.writing.pace import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agentobs.recorder.buffer import Buffer
    from agentobs.recorder.dead_letters.writing import DeadLetters
    from agentobs.recorder.open_runs import OpenRuns
    from agentobs.recorder.writing.delivery import Delivery
    from agentobs.recorder.writing.replay import Replay
    from agentobs.settings import RecorderSettings

logger = logging.getLogger("agentobs.recorder")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# Who closes waits for it; and so long for what other processes, which flush each second, have yet
# to write.
_LONGEST_AT_CLOSE = 0.5
_LONGEST_FOR_OTHERS = 3.0
# About a millisecond, after which other threads go on.
_TURN = 500
# So few take a tenth of a millisecond, for which callers may have to wait.
_MADE_AT_ONCE = 10
# How often what waits for another process's rows looks for them.
_LOOK_EVERY = 0.25


class Writer:
    """What runs in the writer's event loop, from the start of a recorder to its close."""

    def __init__(
        self,
        buffer: Buffer,
        open_runs: OpenRuns,
        delivery: Delivery,
        settings: RecorderSettings,
        *,
        dead_letters: DeadLetters,
        replay: Replay | None,
    ) -> None:
        self.batch = Batch()
        # The number of the oldest entry that is not settled, as of the last flush.
        self.first_sequence = 1
        self._stop = asyncio.Event()
        self._buffer, self._open_runs, self._settings = buffer, open_runs, settings
        self._counters = buffer.counters
        self._delivery = delivery
        self._dead_letters, self._replay = dead_letters, replay
        self._others = Others(settings, delivery)
        self.held = (self._others.children, self._others.changes)
        self._composer = Composer(
            buffer,
            open_runs,
            settings,
            replay=replay,
            children=self._others.children,
            changes=self._others.changes,
        )
        self._awake = asyncio.Event()
        # The number of the last entry that somebody waits for.
        self._urgent_until = 0
        # Whether it must be told that there is something to do.
        self.is_waiting = False
        self._flushed_at = time.monotonic()
        self._give_up_at = math.inf
        self._is_out = False
        self._is_update_refused = False
        self.on_progress: Callable[[], None] = lambda: None

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return self._delivery.connections

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is to come any more."""
        return self._stop.is_set()

    def stop(self, timeout: float) -> None:
        """End when everything is written, in `timeout` seconds at best; called in the loop."""
        self._give_up_at = time.monotonic() + min(_LONGEST_FOR_OTHERS, timeout / 2)
        self._composer.is_ending = True
        self._stop.set()
        self._awake.set()

    def wake(self, *, is_urgent: bool = False) -> None:
        """Look at the buffer now; called in the loop."""
        if is_urgent:
            with self._buffer.lock:
                self._urgent_until = self._buffer.sequence
        self._awake.set()

    async def run(self) -> None:
        """Write until the recorder is stopped and nothing is left."""
        try:
            while not (self.is_stopping and self._is_done()):
                await self._until_due()
                try:
                    await self.flush()
                except Exception as error:  # noqa: BLE001 (whatever it is, the next rows come)
                    reason = error if isinstance(error, SpoolError) else type(error).__name__
                    logger.warning("a flush failed: %s", reason)
                    await self._pause(_LONGEST_AT_CLOSE)
        finally:
            await self._delivery.drop_connection()

    async def close(self) -> None:
        """Close what is left of the connection."""
        await self._delivery.close()
        if self._replay is not None:
            self._replay.close()

    def unsettled(self) -> Iterator[Entry]:
        """Return what was taken from the buffer and is not settled."""
        yield from self.batch
        yield from self._others

    async def flush(self) -> None:
        """Deliver one batch, however long the database is away."""
        self._flushed_at = time.monotonic()
        self._composer.compose(self.batch)
        faulty = self.batch.take_faulty()
        for entry in faulty:
            self._open_runs.settle(entry.id)
        self._bury([(entry, entry.fault or "", None) for entry in faulty], "dead_lettered")
        if self.batch or self._others:
            await self._deliver()
        self._note_first_sequence()
        self._settle_spools()
        self.on_progress()

    def _note_first_sequence(self) -> None:
        taken = [entry.sequence for entry in self.unsettled() if entry.sequence]
        with self._buffer.lock:
            self.first_sequence = min((*taken, self._buffer.first_sequence()))

    def _is_done(self) -> bool:
        if self._open_runs.begun_before(math.inf):
            return False
        return self._buffer.is_empty and not any(True for _ in self.unsettled())

    async def _until_due(self) -> None:
        self._awake.clear()
        wait = self._flushed_at + self._interval() - time.monotonic()
        if wait <= 0 or self._must_flush():
            # The loop turns in any case, for what else runs in it.
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._until_woken()
        self.is_waiting = False

    async def _until_woken(self) -> None:
        # Who puts something in looks at this after that, as we look again after this.
        self.is_waiting = True
        while not self._must_flush():
            await self._awake.wait()
            self._awake.clear()
            self.is_waiting = True

    def _must_flush(self) -> bool:
        return self._is_urgent() or self._must_end() or self._buffer.is_ready

    def _must_end(self) -> bool:
        """Whether we are stopping, and don't wait for others."""
        return self.is_stopping and not (self._buffer.is_empty and self._others)

    def _is_urgent(self) -> bool:
        with self._buffer.lock:
            return self._buffer.first_sequence() <= self._urgent_until

    def _interval(self) -> float:
        if self._others:
            return min(_LOOK_EVERY, self._settings.flush_interval)
        is_replaying = self._replay is not None and self._replay.spool is not None
        return 0.0 if is_replaying else self._settings.flush_interval

    async def _deliver(self) -> None:
        """Bring the batch to the database; where it can't be asked, wait and try again."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._release_held()
                await self._deliver_once()
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows stay)
                await self._wait_for_database(error, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self.batch = Batch()
                self._say_that_it_is_back()
                return

    async def _wait_for_database(self, error: Exception, pause: float) -> None:
        self.batch.is_doubtful = True
        self._note_retry(error)
        await self._delivery.drop_connection()
        # The statistics go on, and whoever waits for them.
        self.on_progress()
        # The half is left to chance, so that processes do not come back all at once.
        await self._pause(pause * (0.5 + random.random() / 2))  # noqa: S311 (no secret)

    def _note_retry(self, error: Exception) -> None:
        with self._buffer.lock:
            self._counters.add("retried")
        if not self._is_out:
            self._is_out = True
            # The words of others may quote what was recorded.
            reason = error if isinstance(error, AgentobsError | OSError) else type(error).__name__
            logger.warning("rows wait for the database, and are sent again: %s", reason)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for long when the recorder is closed."""
        if not self.is_stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
        if self.is_stopping:
            await asyncio.sleep(min(seconds, _LONGEST_AT_CLOSE))

    def _say_that_it_is_back(self) -> None:
        if self._is_out:
            self._is_out = False
            logger.warning("the database takes rows again")

    async def _release_held(self) -> None:
        """Take what waited long enough, or for rows that are there now, into the batch."""
        given_up = await self._others.release(self.batch, is_last=self._is_last)
        with self._buffer.lock:
            self._counters.add("orphaned", given_up.orphaned)
        self._bury([(entry, given_up.reason, None) for entry in given_up.unmatched], "unmatched")

    @property
    def _is_last(self) -> bool:
        """Whether nothing of ours is to come that something may wait for."""
        is_over = self.is_stopping and time.monotonic() >= self._give_up_at
        return is_over and self._buffer.is_empty and not self.batch

    async def _deliver_once(self) -> None:
        batch, delivery, doubt = self.batch, self._delivery, self.batch.is_doubtful
        began = time.monotonic()
        done = Delivered()
        ahead = asyncio.create_task(self._make_ahead())
        try:
            await delivery.insert_metrics(in_order(batch.metrics), done, is_doubtful=doubt)
            await delivery.insert_events(in_order(batch.events), done, is_doubtful=doubt)
            await delivery.complete_runs(in_order(batch.completions), done)
            await self._update(done)
        finally:
            ahead.cancel()
            self._account_for(done)
        with self._buffer.lock:
            self._counters.flushed(time.monotonic() - began)

    async def _update(self, done: Delivered) -> None:
        """Note outcomes and feedback; what can't be noted now waits, and holds up nothing else."""
        outcomes, feedback = in_order(self.batch.outcomes), in_order(self.batch.feedback)
        try:
            await self._delivery.update_outcomes(outcomes, done)
            await self._delivery.update_feedback(feedback, done)
        except DatabaseError as error:
            if is_outage(error):
                raise
            self._hold_back((*outcomes, *feedback), error, done)
            if isinstance(error, StatementTimeoutError):
                # It has given its connection up.
                await self._delivery.drop_connection()
        else:
            self._is_update_refused = self._is_update_refused and not (outcomes or feedback)

    def _hold_back(self, changes: Iterable[Entry], error: DatabaseError, done: Delivered) -> None:
        """Let changes wait that were refused for the first time, and refuse the others."""
        settled = {id(e) for e in (*done.written, *done.unmatched)}
        settled |= {id(entry) for entry, _ in done.refused}
        left = [entry for entry in changes if id(entry) not in settled]
        for entry in left:
            if is_overdue(entry, self._settings.outcome_wait):
                done.refused.append((entry, error))
            else:
                done.unmatched.append(entry)
        if not self._is_update_refused:
            logger.warning("outcomes and feedback wait, and are sent again: %s", error)
        self._is_update_refused = True

    async def _make_ahead(self) -> None:
        """Make the values of the next rows while the server is busy with these."""
        entries = self._buffer.oldest(self._settings.flush_rows)
        for start in range(0, len(entries), _MADE_AT_ONCE):
            # An update may come, and go into the row. Where many threads want the lock, it would
            # take longer to get than the values to make.
            if not self._buffer.lock.acquire(blocking=False):
                return
            try:
                for entry in entries[start : start + _MADE_AT_ONCE]:
                    _ = entry.values
            finally:
                self._buffer.lock.release()
            await asyncio.sleep(0)

    def _account_for(self, done: Delivered) -> None:
        """Take out of the batch what the database answered for."""
        for entry in in_turns(done.written, _TURN):
            self._note_run(entry)
        self._settled(done.written, "written")
        for entry, _ in done.refused:
            self._open_runs.settle(entry.id)
        self._bury([(entry, str(error), error) for entry, error in done.refused], "dead_lettered")
        for entry in sorted(done.parentless, key=lambda entry: entry.id):
            if entry.parent is not None:
                self._others.children.hold(entry, entry.parent)
        for entry in done.unmatched:
            self._others.changes.hold(entry, entry.id)
        self.batch.take_out((*done.parentless, *done.unmatched))

    def _note_run(self, entry: Entry) -> None:
        if entry.kind is Kind.TRANSFORMATION and entry.is_start:
            self._composer.announced.add(entry.id)
            self._open_runs.settle(entry.id)
        elif self._composer.announced:
            self._composer.announced.discard(entry.id)

    def _settled(self, entries: list[Entry], what: str) -> None:
        self.batch.take_out(entries)
        kinds = Counter(kind for entry in entries for kind in entry.kinds)
        replayed = Counter(kind for e in entries if e.is_replayed for kind in e.kinds)
        with self._buffer.lock:
            for kind, number in kinds.items():
                self._counters.count(what, kind, number)
            for kind, number in replayed.items():
                self._counters.count("replayed", kind, number)

    def _bury(self, letters: list[tuple[Entry, str, Exception | None]], what: str) -> None:
        is_kept = bury(self._dead_letters, letters)
        self._settled([entry for entry, _, _ in letters], what if is_kept else "lost")

    def _settle_spools(self) -> None:
        taken = list(self.unsettled())
        if self._replay is not None:
            self._replay.settle(taken)
        own = self._buffer.spool
        if own is None:
            return
        with self._buffer.lock:
            open_entries = (*taken, *self._composer.starts.values())
            here = [e.position for e in open_entries if e.spool is own and e.position]
            others = (self._buffer.first_position(), self._open_runs.first_position())
            first = min((*here, *filter(None, others), own.end))
        own.settle(first)
