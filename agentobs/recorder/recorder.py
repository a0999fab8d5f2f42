"""The recorder: what services call, from any thread and any event loop."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Self, Unpack

from agentobs.recorder import lifecycle
from agentobs.recorder.entries import Kind
from agentobs.recorder.lifetime import Lifetime
from agentobs.recorder.options import (
    RecorderOptions,
    require_seconds,
    require_settings,
    settings_of,
)
from agentobs.recorder.records import (
    Decision,
    DroppedDecision,
    RoutingDecision,
    Transformation,
    one_of,
    require_no_end,
)
from agentobs.recorder.refusals import Refusals
from agentobs.recorder.run import Run
from agentobs.recorder.run_facts import RunFacts
from agentobs.recorder.run_owner import RunOwner
from agentobs.recorder.trace_context import current_context, enter, leave, parse_trace_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from signal import Signals
    from types import TracebackType
    from uuid import UUID

    from agentobs.recorder.buffer import Buffer
    from agentobs.recorder.fields import RoutingDecisionFields, TransformationFields
    from agentobs.recorder.running import CloseReport
    from agentobs.recorder.statistics import Statistics
    from agentobs.settings import DatabaseSettings


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
        self._lifetime = Lifetime(self.settings, database, redact)
        self._refusals = Refusals(self._lifetime)
        self._owner = RunOwner(self._lifetime, self._refusals)

    def start(self) -> Self:
        """Start the writer; raise ConfigurationError without an address. A second start is nothing.

        The database need not be there yet.
        """
        self._lifetime.start()
        return self

    def close(self, timeout: float | None = None) -> CloseReport:
        """Write what was taken, within `timeout` seconds, and end; report what is left.

        Unset, the time is the setting's `close_timeout`. What is left is never given up silently:
        it is in the spool, or in the dead-letter file.
        """
        require_seconds(timeout)
        return self._lifetime.close(timeout)

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
            buffer = self._buffer()
            made = one_of(record, RoutingDecision, values)
            decision, entry = self._lifetime.intake.decision(made)
            is_taken = buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (whatever it is, the host goes on)
            self._refusals.turn_away(Kind.DECISION, error)
            return self._lifetime.intake.unrecorded_decision(record, values)
        if is_taken:
            return decision
        return DroppedDecision(decision.id, decision.correlation_id, made)

    def transformation(
        self,
        record: Transformation | None = None,
        /,
        *,
        decision: Decision | None = None,
        **values: Unpack[TransformationFields],
    ) -> Run:
        """Return a block that runs as another agent: `with recorder.transformation(…) as run`.

        It starts where it is entered, and the workflow, the parent and the source are those of the
        block or the context around it there, unless the record says otherwise; confidence and
        strategy are the decision's. The context snapshot is taken now.
        """
        try:
            self._buffer()
            made = one_of(record, Transformation, values)
            facts = RunFacts(self._lifetime, made, decision)
            require_no_end(made)
            return Run(facts, made, self._owner)
        except Exception as error:  # noqa: BLE001 (as above)
            self._refusals.turn_away(Kind.TRANSFORMATION, error)
            return self._lifetime.intake.unrecorded_run(record, values)

    def record(self, record: Transformation | RoutingDecision) -> UUID | None:
        """Record what was measured elsewhere, whole; return its key, or None where it is not taken.

        A transformation whose `success` is None is stored as one that goes on.
        """
        kind = Kind.DECISION if isinstance(record, RoutingDecision) else Kind.TRANSFORMATION
        try:
            buffer = self._buffer()
            entry = self._lifetime.intake.whole(record)
            is_taken = buffer.put(entry)
        except Exception as error:  # noqa: BLE001 (as above)
            self._refusals.turn_away(kind, error)
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
            buffer = self._buffer()
            if self._refusals.lets_pass(Kind.OUTCOME, decision):
                buffer.put(self._lifetime.intake.outcome(decision, success, quality_score))
        except Exception as error:  # noqa: BLE001 (as above)
            self._refusals.turn_away(Kind.OUTCOME, error)

    def feedback(
        self,
        decision: Decision | UUID | str,
        feedback_type: str,
        details: Mapping[Any, Any] | None = None,
    ) -> None:
        """Record what a person said of a decision; the last call wins."""
        try:
            buffer = self._buffer()
            if self._refusals.lets_pass(Kind.FEEDBACK, decision):
                buffer.put(self._lifetime.intake.feedback(decision, feedback_type, details))
        except Exception as error:  # noqa: BLE001 (as above)
            self._refusals.turn_away(Kind.FEEDBACK, error)

    def context(self) -> str | None:
        """Return where the code runs, as a string for a header; None outside of any workflow.

        It is a traceparent of W3C Trace Context, with more behind a semicolon. The run that it
        names is written soon, whether or not it has ended, for rows elsewhere will refer to it.
        """
        here = current_context()
        if here is None:
            return None
        running = self._lifetime.running
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
            self._refusals.turn_away(Kind.TRANSFORMATION, error)
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
        require_seconds(timeout)
        self._lifetime.require_running().barrier(timeout)

    async def abarrier(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (as above)
        """Wait as `barrier` does, without holding up the event loop."""
        require_seconds(timeout)
        await self._lifetime.require_running().abarrier(timeout)

    @property
    def is_replaying(self) -> bool:
        """Whether there may be spools of dead processes that it has not written yet."""
        running = self._lifetime.running
        return running is not None and running.is_replaying

    def statistics(self) -> Statistics:
        """Return what was done since the start; of a closed recorder, what it had done."""
        return self._lifetime.statistics()

    def close_on_signals(self, *signals: Signals) -> None:
        """Close on SIGTERM, or on the signals that are named, before what the host does on them.

        Only the main thread may ask for it.
        """
        lifecycle.close_on_signals(self._lifetime, signals or (SIGTERM,))

    def _buffer(self) -> Buffer:
        """Return where records go; raise RecorderClosedError after the close.

        Before anything else of a call: where Python ends, it stops a thread that goes on where it
        is, and where that is in the compiled part of pydantic, the process ends by an abort.
        """
        return self._lifetime.require_running().buffer
