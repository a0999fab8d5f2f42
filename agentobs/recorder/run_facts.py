"""What is known of a run when it begins: what it was given, and where and when that is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from agentobs.recorder.trace_context import current_context

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.intake import EventFacts
    from agentobs.recorder.lifetime import Lifetime
    from agentobs.recorder.records import Decision, Transformation
    from agentobs.recorder.rows import Place, RunEnd

# A run that is entered so soon, in seconds, has begun when it was made.
_AT_ONCE = 0.001
# What was taken when the run was made, for the host may change it.
_TAKEN = {"context_snapshot": None, "user_request": None}


class RunFacts:
    """Facts with the context of the call, and with the place and the start of the block.

    They are placed where the block is entered, or where the id is asked for before.
    """

    def __init__(
        self, lifetime: Lifetime, record: Transformation, decision: Decision | None
    ) -> None:
        self._lifetime = lifetime
        self._record = record
        self._decision = decision
        self._made_at = time.monotonic()
        self._made_in = current_context(), os.getpid()
        self._taken = lifetime.intake.facts(record, decision)
        self._placed: EventFacts | None = None

    @property
    def id(self) -> UUID:
        """The key of the run's row."""
        return self._here.id

    @property
    def started_at(self) -> datetime:
        """When the run began."""
        return self._here.started_at

    @property
    def place(self) -> Place:
        """Where the run stands."""
        return self._here.place

    def entry(self, end: RunEnd, *, is_start: bool = False) -> Entry:
        """Return the row of the run with this end."""
        elsewhere = None if self._here is self._taken else self._here
        return self._taken.entry(end, is_start=is_start, elsewhere=elsewhere)

    @property
    def _here(self) -> EventFacts:
        if self._placed is None:
            self._placed = self._taken if self._is_where_it_was_made() else self._placed_anew()
        return self._placed

    def _is_where_it_was_made(self) -> bool:
        is_at_once = time.monotonic() - self._made_at < _AT_ONCE
        context, process = self._made_in
        return (
            (is_at_once or self._record.started_at is not None)
            and current_context() is context
            and os.getpid() == process
        )

    def _placed_anew(self) -> EventFacts:
        bare = self._record.model_copy(update=_TAKEN)
        return self._lifetime.intake.facts(bare, self._decision)
