"""Windows of time: what every question of the analytics is bounded by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import and_, literal

from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH, uuid7_floor

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric

    Timed = type[AgentTransformationEvent | RouterPerformanceMetric]


_AWARE = "use datetime.now(UTC), or datetime(..., tzinfo=UTC)"


@dataclass(frozen=True, slots=True)
class Window:
    """The time from `since` on, up to `until` and without it.

    Both are aware datetimes, kept in UTC. Raises InvalidValueError for others, for a window without
    a beginning or an end, and for one that ends before it begins.
    """

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            object.__setattr__(self, name, _instant(name, getattr(self, name)))
        if self.since >= self.until:
            raise InvalidValueError("window", "must end after it begins")

    @classmethod
    def last(cls, length: timedelta, *, until: datetime | None = None) -> Self:
        """Return the window of a length that ends now, or at `until`."""
        if not isinstance(length, timedelta):
            raise InvalidValueError("window", "must have a timedelta for length: timedelta(days=7)")
        if length <= timedelta(0):
            raise InvalidValueError("window", "must have a length above 0")
        end = datetime.now(UTC) if until is None else _instant("until", until)
        try:
            return cls(max(end - length, EPOCH), end)
        except OverflowError:
            return cls(EPOCH, end)

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.until - self.since

    @property
    def before(self) -> Window | None:
        """The window of the same length just before it; None where that would begin before 1970."""
        if self.since - EPOCH < self.length:
            return None
        return Window(self.since - self.length, self.since)

    def holds(self, model: Timed) -> ColumnElement[bool]:
        """Return the condition that a row's instant lies in the window, by the row's key.

        Its bounds are constants for the planner, which looks into no other month.
        """
        since, until = uuid7_floor(self.since), uuid7_floor(self.until)
        return and_(model.id >= literal(since), model.id < literal(until))


def require_window(window: Window) -> Window:
    """Return the window; raise InvalidValueError for anything else that a caller gave for one."""
    if not isinstance(window, Window):
        raise InvalidValueError("window", "must be a Window: Window.last(timedelta(days=7))")
    return window


def _instant(name: str, value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidValueError(f"window.{name}", "must be a datetime: a window has two ends")
    if value.utcoffset() is None:
        raise InvalidValueError(f"window.{name}", f"must have a time zone: {_AWARE}")
    instant = value.astimezone(UTC)
    if instant < EPOCH:
        raise InvalidValueError(f"window.{name}", "must not lie before 1970")
    return instant
