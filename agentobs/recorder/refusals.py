"""What a recorder does not take: counted and logged once where it is lenient, else raised."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agentobs.errors import AgentobsError, InvalidValueError
from agentobs.recorder.entries import Kind
from agentobs.recorder.records import DroppedDecision, UnrecordedDecision

if TYPE_CHECKING:
    from agentobs.recorder.lifetime import Lifetime

logger = logging.getLogger("agentobs.recorder")

_MOST_SAID = 100


class Refusals:
    """Counts, or raises, for one recorder."""

    def __init__(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._is_lenient = lifetime.settings.lenient
        # What was logged: each reason is, once.
        self._said: set[str] = set()

    def turn_away(self, kind: Kind, error: Exception) -> None:
        """Count a record that can't be taken."""
        if not self._is_lenient:
            raise error
        counters = self._lifetime.counters
        with counters.lock:
            counters.count("refused", kind)
        self._say_once(f"{'an' if kind is Kind.OUTCOME else 'a'} {kind} was refused", error)

    def lets_pass(self, kind: Kind, decision: object) -> bool:
        """Tell whether there will be a row for what is said of a decision; count it otherwise.

        Raises InvalidValueError for a decision that was refused: it would wait for its row in vain,
        and with it every barrier.
        """
        if isinstance(decision, UnrecordedDecision):
            raise InvalidValueError("decision", "has no row: its decision was refused")
        if not isinstance(decision, DroppedDecision):
            return True
        counters = self._lifetime.counters
        with counters.lock:
            counters.count("dropped", kind)
        return False

    def leave_out(self, error: ValueError) -> None:
        """Count a value that does not fit its run."""
        if not self._is_lenient:
            raise error
        counters = self._lifetime.counters
        with counters.lock:
            counters.add("sanitised")
        self._say_once("a value was left out", error)

    def _say_once(self, what: str, error: Exception) -> None:
        # The words of others may quote what was recorded.
        reason = error if isinstance(error, AgentobsError) else type(error).__name__
        if str(reason) not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(str(reason))
            logger.error("%s, said once and counted from now on: %s", what, reason)
