"""The recorder: what services call, from any thread and any event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager, suppress
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Self, Unpack

from agentobs.errors import AgentobsError, InvalidValueError, RecorderClosedError
from agentobs.recorder import lifecycle
from agentobs.recorder.entries import Kind
from agentobs.recorder.intake import Intake
from agentobs.recorder.options import RecorderOptions, require_settings, settings_of
from agentobs.recorder.records import Decision, RoutingDecision, Transformation, one_of
from agentobs.recorder.rows import RunEnd
from agentobs.recorder.run import Run
from agentobs.recorder.running import CloseReport, Running
from agentobs.recorder.statistics import Counters, Statistics
from agentobs.recorder.trace_context import current_context, enter, leave, parse_trace_context
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from signal import Signals
    from types import TracebackType
    from uuid import UUID

    from agentobs.recorder.fields import RoutingDecisionFields, TransformationFields
    from agentobs.settings import DatabaseSettings


logger = logging.getLogger("agentobs.recorder")

_MOST_SAID = 100


class Recorder:
    """Takes records at once, and writes them from a thread of its own.

    ::

        with Recorder() as recorder:                # also: async with, or start() and close()
            decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
            with recorder.transformation(target_agent="agent-debug", decision=decision) as run:
                run.quality_score = 0.92
            recorder.outcome(decision, success=True, quality_score=0.92)

    Without `database` its address is that of the environment, and so are the `options`, which are
    the fields of RecorderSettings: `Recorder(delivery="spool", lenient=False)`. `redact` gets each
    context and each request, and what it returns is taken instead. Every method may be called from
    any thread; none but `barrier` and `close` waits, nor does a record with another delivery than
    `block`. A forked child gets an empty recorder, which starts with its first record.

    A record that can't be taken is counted and logged once; with `lenient=False` it raises
    InvalidValueError, or RecorderClosedError, where it was made.
    """

    def __init__(
        self,
        database: DatabaseSettings | None = None,
        *,
        redact: Callable[[Any], Any] | None = None,
        **options: Unpack[RecorderOptions],
    ) -> None:
        self.settings = settings_of(options)
        require_settings(database)
        self._database = database
        self._redact = redact
        self._intake = self._new_intake()
        self._inherited: Running | None = None
        self._running: Running | None = None
        self._is_closed = False
        # What was logged: each reason is, once.
        self._said: set[str] = set()
        self._counters = Counters()
        self._start_lock, self._close_lock = threading.RLock(), threading.RLock()
        self._report = CloseReport({}, 0.0)
        self._forget_exit: Callable[[], None] = lambda: None
        lifecycle.watch(self)

    def start(self) -> Self:
        """Start the writer; raise ConfigurationError without an address. A second start is nothing.

        The database need not be there yet.
        """
        with self._start_lock:
            if self._running is None:
                database = read_settings() if self._database is None else self._database
                if self._is_closed:
                    self._counters = Counters()
                self._running = Running(self.settings, database, self._counters)
                self._is_closed = False
                self._forget_exit = lifecycle.close_at_exit(self)
        return self

    def close(self, timeout: float | None = None) -> CloseReport:
        """Write what was taken, within `timeout` seconds, and end; report what is left.

        Unset, the time is the setting's `close_timeout`. What is left is never given up silently:
        it is in the spool, or in the dead-letter file.
        """
        # Who comes second waits for the first, and gets the same report.
        with self._close_lock:
            with self._start_lock:
                running, self._running = self._running, None
                self._is_closed = True
            if running is not None:
                self._forget_exit()
                limit = self.settings.close_timeout if timeout is None else timeout
                self._report = running.close(limit)
            return self._report

    async def aclose(self, timeout: float | None = None) -> CloseReport:  # noqa: ASYNC109 (a bound, not a cancellation)
        """Close without holding up the event loop; who is cancelled does not stop it."""
        return await asyncio.shield(asyncio.to_thread(self.close, timeout))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def routing_decision(
        self, record: RoutingDecision | None = None, /, **values: Unpack[RoutingDecisionFields]
    ) -> Decision:
        """Record a decision of the router, given as a record or by the fields of one."""
        try:
            made = one_of(record, RoutingDecision, values)
            decision, entry = self._intake.decision(made)
            self._require_running().buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (whatever it is, the host goes on)
            self._turn_away(Kind.DECISION, error)
            return self._intake.unrecorded_decision(record, values)
        return decision

    def transformation(
        self,
        record: Transformation | None = None,
        /,
        *,
        decision: Decision | None = None,
        **values: Unpack[TransformationFields],
    ) -> Run:
        """Return a block that runs as another agent: `with recorder.transformation(…) as run`.

        The workflow, the parent and the source are those of the block or the context around it,
        unless the record says otherwise; confidence and strategy are the decision's.
        """
        try:
            made = one_of(record, Transformation, values)
            return Run(self._intake.facts(made, decision), made, self)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(Kind.TRANSFORMATION, error)
            return self._intake.unrecorded_run(record, values)

    def record(self, record: Transformation | RoutingDecision) -> UUID | None:
        """Record what was measured elsewhere, whole; return its key, or None where it is not taken.

        A transformation whose `success` is None is stored as one that goes on.
        """
        kind = Kind.DECISION if isinstance(record, RoutingDecision) else Kind.TRANSFORMATION
        try:
            entry = self._intake.whole(record)
            is_taken = self._require_running().buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(kind, error)
            return None
        return entry.id if is_taken else None

    def outcome(
        self,
        decision: Decision | UUID | str,
        *,
        success: bool | None = None,
        quality_score: float | None = None,
    ) -> None:
        """Record what came of a decision, by the decision or its id; the last call wins.

        The prediction error is the decision's confidence minus the quality.
        """
        try:
            entry = self._intake.outcome(decision, success, quality_score)
            self._require_running().buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(Kind.OUTCOME, error)

    def feedback(
        self,
        decision: Decision | UUID | str,
        feedback_type: str,
        details: Mapping[Any, Any] | None = None,
    ) -> None:
        """Record what a person said of a decision; the last call wins."""
        try:
            entry = self._intake.feedback(decision, feedback_type, details)
            self._require_running().buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(Kind.FEEDBACK, error)

    def context(self) -> str | None:
        """Return where the code runs, as a string for a header; None outside of any workflow.

        It is a traceparent of W3C Trace Context, with more behind a semicolon. The run that it
        names is written soon, whether or not it has ended, for rows elsewhere will refer to it.
        """
        here = current_context()
        if here is None:
            return None
        running = self._running
        if running is not None and here.parent_event_id is not None:
            running.open_runs.hurry(here.parent_event_id)
        return str(here)

    @contextmanager
    def attach(self, context: str | None) -> Iterator[None]:
        """Go on within the block where `context()` was asked, in another thread or process.

        A traceparent of another tool is taken too; None changes nothing. One that is neither is
        counted as a refused record where the recorder is lenient.
        """
        try:
            here = None if context is None else parse_trace_context(context)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(Kind.TRANSFORMATION, error)
            here = None
        scope = None if here is None else enter(here)
        try:
            yield
        finally:
            if scope is not None:
                leave(scope)

    def barrier(self, timeout: float | None = None) -> None:
        """Wait until all that was taken so far is safe; raise BarrierTimeoutError otherwise.

        Safe is what is on the disk of the spool, or else committed. Runs that go on are not in it.
        """
        self._require_running().barrier(timeout)

    async def abarrier(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (as above)
        """Wait as `barrier` does, without holding up the event loop."""
        await _in_daemon(lambda: self.barrier(timeout))

    @property
    def is_replaying(self) -> bool:
        """Whether there may be spools of dead processes that it has not written yet."""
        running = self._running
        return running is not None and running.is_replaying

    def statistics(self) -> Statistics:
        """Return what was done since the start; of a closed recorder, what it had done."""
        running = self._running
        return self._counters.snapshot({}) if running is None else running.statistics()

    def close_on_signals(self, *signals: Signals) -> None:
        """Close on SIGTERM, or on the signals that are named, before what the host does on them.

        Only the main thread may ask for it.
        """
        lifecycle.close_on_signals(self, signals or (SIGTERM,))

    def begin(self, run: Run) -> None:
        """Take a run that begins; `Run` calls it."""
        if run.has_begun:
            again = InvalidValueError("run", "was entered before: make one for each block")
            self._turn_away(Kind.TRANSFORMATION, again)
            return
        try:
            running = self._require_running()
            start = run.facts.entry(RunEnd(), is_start=True)
            # At once, for what is neither open nor ended is settled.
            with running.buffer.lock:
                running.buffer.spool_start(start)
                running.open_runs.add(start, run.began)
        except Exception:
            # Where that is no reason to stop the host, the run is counted by its end.
            if not self.settings.lenient:
                raise

    def end(self, run: Run, end: RunEnd) -> None:
        """Take the end of a run; `Run` calls it."""
        try:
            running = self._require_running()
            entry = run.facts.entry(end)
            with running.buffer.lock:
                start = running.open_runs.get(run.id)
                # A row that says for ever that the run goes on is worse than one too many here.
                running.buffer.put(entry, must_fit=start is None or start.is_made)
                # Not before: a child that is written now looks for its parent in both.
                running.open_runs.remove(run.id)
        except Exception as error:  # noqa: BLE001 (as above)
            self._turn_away(Kind.TRANSFORMATION, error)

    def refuse_value(self, error: ValueError) -> None:
        """Count a value that does not fit its run, or raise; `Run` calls it."""
        if not self.settings.lenient:
            raise error
        with self._counters.lock:
            self._counters.add("sanitised")
        self._say_once("a value was left out", error)

    def _require_running(self) -> Running:
        running = self._running
        if running is not None:
            return running
        if self._is_closed:
            raise RecorderClosedError(
                "the recorder is closed: record within `with recorder:`, or start() it again"
            )
        # It was forked, or is used without a start.
        self.start()
        if self._running is None:
            raise RecorderClosedError("the recorder was closed while it started")
        return self._running

    def _turn_away(self, kind: Kind, error: Exception) -> None:
        """Count what can't be taken, and say so once; or raise it where we are strict."""
        if not self.settings.lenient:
            raise error
        with self._counters.lock:
            self._counters.count("refused", kind)
        self._say_once(f"a {kind} was refused", error)

    def _say_once(self, what: str, error: Exception) -> None:
        # The words of others may quote what was recorded.
        reason = error if isinstance(error, AgentobsError) else type(error).__name__
        if str(reason) not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(str(reason))
            logger.error("%s, said once and counted from now on: %s", what, reason)

    def _new_intake(self) -> Intake:
        settings = self.settings
        return Intake(settings.context_limit, self._redact, is_lenient=settings.lenient)

    def was_forked(self) -> None:
        """Begin anew in a child: what was taken before is the parent's to write."""
        inherited, self._running = self._running, None
        self._start_lock, self._close_lock = threading.RLock(), threading.RLock()
        self._report = CloseReport({}, 0.0)
        self._counters = Counters()
        self._intake = self._new_intake()
        if inherited is not None:
            inherited.abandon()
            # Its sockets are the parent's too: to close them would end its session.
            self._inherited = inherited


async def _in_daemon(work: Callable[[], None]) -> None:
    """Wait for work in a thread, for which no loop waits at its end when we are cancelled."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except Exception as raised:  # noqa: BLE001 (it is raised where it is awaited)
            error = raised
        # Where the loop is closed, nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="agentobs barrier", daemon=True).start()
    await done
