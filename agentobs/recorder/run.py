"""A run of an agent under an assumed identity: a block of the host's code, and one row."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, Self

from agentobs.errors import InvalidValueError
from agentobs.models import EventType
from agentobs.recorder.records import Transformation
from agentobs.recorder.rows import RunEnd
from agentobs.recorder.trace_context import Scope, TraceContext, enter, leave

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from types import TracebackType
    from uuid import UUID

    from agentobs.recorder.entries import Entry
    from agentobs.recorder.rows import Place

_RESULTS = ("quality_score", "transformation_duration_ms", "initialization_duration_ms")
_SETTABLE = frozenset({*_RESULTS, "began", "facts", "has_begun", "record", "results"})
_NOTHING_TO_SET = (
    "can't be set: a run has quality_score and two durations, and fails by an exception or fail()"
)
_TYPE_LENGTH = 100
# Of the errors in a group.
_MOST_NAMES = 10
_INTEGER_MAX = 2**31 - 1


def _checked(name: str) -> Any:
    """Make an attribute whose value is checked as the record's field of that name."""

    def read(run: Run) -> Any:
        return run.results.get(name)

    def write(run: Run, value: Any) -> None:
        run.results[name] = run.checked(name, value)

    return property(read, write)


class Run:
    """What `recorder.transformation()` returns: the block runs as another agent.

    `id` is the key of its row and `correlation_id` that of its workflow. Where and when the run
    begins is settled when the block is entered, or one of them is asked for before. An exception
    that leaves the block makes it a failed one, and goes on. What is set on it until then is stored
    when it ends: `quality_score`, 0 to 1, and the two durations in milliseconds. Times are
    measured on the monotonic clock.
    """

    quality_score: float | None = _checked("quality_score")
    transformation_duration_ms: int | None = _checked("transformation_duration_ms")
    initialization_duration_ms: int | None = _checked("initialization_duration_ms")

    def __init__(self, facts: Facts, record: Transformation, owner: Owner) -> None:
        self._owner = owner
        self.facts = facts
        self.record = record
        self.results: dict[str, Any] = {name: getattr(record, name) for name in _RESULTS}
        self.began = self._marked = time.monotonic()
        self.has_begun = False
        self._failure: tuple[str, str | None] | None = None
        self._scopes: list[Scope] = []
        self._has_ended = False
        self._process = os.getpid()

    # Hidden from type checkers, which would take it for leave to assign any name.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_") or name in _SETTABLE:
                super().__setattr__(name, value)
            else:
                # Python would take it without a word, and nothing would be stored.
                self._owner.refuse_value(InvalidValueError(f"run.{name}", _NOTHING_TO_SET))

    @property
    def id(self) -> UUID:
        """The key of its row."""
        return self.facts.id

    @property
    def correlation_id(self) -> UUID:
        """The key of its workflow."""
        return self.facts.place.correlation_id

    @property
    def started_at(self) -> datetime:
        """When it began."""
        return self.facts.started_at

    def checked(self, name: str, value: Any) -> Any:
        """Return a value that fits the field, else None; raise where the recorder is strict."""
        try:
            return getattr(Transformation(target_agent="", **{name: value}), name)
        except ValueError as error:
            self._owner.refuse_value(error)
            return None

    def __repr__(self) -> str:
        # To ask for the id before the block would settle it.
        key = f"id={self.id!s}, " if self.has_begun else ""
        return f"Run({key}target_agent={self.record.target_agent!r})"

    def transformed(self) -> None:
        """Note that the identity is assumed: the time since the start is how long that took."""
        self.transformation_duration_ms = self._since_mark()

    def initialized(self) -> None:
        """Note that the agent is ready: the time since `transformed` is how long that took."""
        self.initialization_duration_ms = self._since_mark()

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Let the run end as a failed one, though no exception leaves the block."""
        self._failure = (_shown(error_type), None if message is None else _shown(message))

    def __enter__(self) -> Self:
        if not self.has_begun:
            self._process = os.getpid()
            self.began = self._marked = time.monotonic()
        self._owner.begin(self)
        self.has_begun = True
        place = self.facts.place
        here = TraceContext(
            self.correlation_id, self.id, place.session_id, self.record.target_agent
        )
        self._scopes.append(enter(here))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._scopes:
            leave(self._scopes.pop())
        # In a child that was forked within the block, it is the parent's to end.
        if self._scopes or self._has_ended or os.getpid() != self._process:
            return
        self._has_ended = True
        try:
            self._owner.end(self, self._ending(error))
        except Exception as ours:
            if error is None:
                raise
            # It is the host's error that goes on.
            error.add_note(f"the recorder could not take the run: {ours}")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _since_mark(self) -> int:
        now = time.monotonic()
        marked, self._marked = self._marked, now
        return _milliseconds(now - marked)

    def _ending(self, error: BaseException | None) -> RunEnd:
        seconds = time.monotonic() - self.began
        failure = self._failure if error is None else (type(error).__qualname__, _message_of(error))
        kind, message = failure or (None, None)
        return RunEnd(
            event_type=EventType.COMPLETE if failure is None else EventType.FAILED,
            success=failure is None,
            error_type=kind and kind[:_TYPE_LENGTH],
            error_message=message,
            **self.results,
            total_execution_duration_ms=_milliseconds(seconds),
            completed_at=_later(self.started_at, seconds),
        )


def _milliseconds(seconds: float) -> int:
    return min(round(seconds * 1000), _INTEGER_MAX)


def _later(instant: datetime, seconds: float) -> datetime:
    try:
        return instant + timedelta(seconds=seconds)
    except OverflowError:
        # A host may give any start, to the end of the year 9999.
        return instant


def _shown(value: object) -> str:
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001 (an object of the host may raise anything)
        return f"{type(value).__qualname__}, which can't be shown"


def _message_of(error: BaseException) -> str:
    """Return its message, and of a group the types in it that the message does not name."""
    message = _shown(error)
    if not isinstance(error, BaseExceptionGroup):
        return message
    names = list(islice(_names_in(error), _MOST_NAMES + 1))
    if all(name in message for name in names):
        return message
    told = names[:_MOST_NAMES] + ["…"] * (len(names) > _MOST_NAMES)
    return f"{message}: {', '.join(told)}"


def _names_in(group: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    """Return the names of the types in it, each once, in the order in which they stand there."""
    seen: set[str] = set()
    left: list[BaseException] = [group]
    while left:
        error = left.pop()
        if isinstance(error, BaseExceptionGroup):
            left.extend(reversed(error.exceptions))
        elif (name := type(error).__qualname__[:_TYPE_LENGTH]) not in seen:
            seen.add(name)
            yield name


class UnrecordedRun(Run):
    """A run that could not be taken: the block runs, and what it records belongs to its parent."""

    def __init__(self, facts: Facts, record: Transformation) -> None:
        super().__init__(facts, record, Nobody())

    def __enter__(self) -> Self:
        return self


class Facts(Protocol):
    """What is known of a run when it begins."""

    @property
    def id(self) -> UUID:
        """The key of its row."""

    @property
    def started_at(self) -> datetime:
        """When it began."""

    @property
    def place(self) -> Place:
        """Where it stands."""

    def entry(self, end: RunEnd, *, is_start: bool = False) -> Entry:
        """Return its row with this end."""


class Owner(Protocol):
    """What a run tells its recorder."""

    def begin(self, run: Run) -> None:
        """Take a run that begins."""

    def end(self, run: Run, end: RunEnd) -> None:
        """Take the end of a run."""

    def refuse_value(self, error: ValueError) -> None:
        """Count a value that does not fit, or raise."""


class Nobody:
    """The owner of a run that is not recorded."""

    def begin(self, run: Run) -> None:
        """Take nothing."""

    def end(self, run: Run, end: RunEnd) -> None:
        """Take nothing."""

    def refuse_value(self, error: ValueError) -> None:
        """Count nothing."""
