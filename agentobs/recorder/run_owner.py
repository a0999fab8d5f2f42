"""What the blocks of a recorder tell it: that they begin, how they end, what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import InvalidValueError
from agentobs.recorder.entries import Kind
from agentobs.recorder.rows import RunEnd

if TYPE_CHECKING:
    from agentobs.recorder.lifetime import Lifetime
    from agentobs.recorder.refusals import Refusals
    from agentobs.recorder.run import Run
    from agentobs.recorder.running import Running


class RunOwner:
    """The owner of the runs that are recorded."""

    def __init__(self, lifetime: Lifetime, refusals: Refusals) -> None:
        self._lifetime = lifetime
        self._refusals = refusals

    def begin(self, run: Run) -> None:
        """Take a run that begins."""
        if run.has_begun:
            again = InvalidValueError("run", "was entered before: make one for each block")
            self._refusals.turn_away(Kind.TRANSFORMATION, again)
            return
        try:
            running = self._lifetime.require_running()
            start = run.facts.entry(RunEnd(), is_start=True)
            # At once, for what is neither open nor ended is settled.
            with running.buffer.lock:
                running.buffer.spool_start(start)
                running.open_runs.add(start, run.began)
        except Exception:
            # Where that is no reason to stop the host, the run is counted by its end.
            if not self._lifetime.settings.lenient:
                raise

    def end(self, run: Run, end: RunEnd) -> None:
        """Take the end of a run."""
        try:
            running = self._lifetime.require_running()
            self._end(running, run, end)
        except Exception as error:  # noqa: BLE001 (whatever it is, the host goes on)
            self._refusals.turn_away(Kind.TRANSFORMATION, error)

    def _end(self, running: Running, run: Run, end: RunEnd) -> None:
        with running.buffer.lock:
            try:
                start = running.open_runs.get(run.id)
                # A row that says for ever that the run goes on is worse than one too many here.
                running.buffer.put(run.facts.entry(end), must_fit=start is None or start.is_made)
            finally:
                # Not before: a child that is written now looks for its parent in both. And where
                # the end can't be taken, the run goes on no longer.
                running.open_runs.remove(run.id)

    def refuse_value(self, error: ValueError) -> None:
        """Leave out a value that does not fit."""
        self._refusals.leave_out(error)
