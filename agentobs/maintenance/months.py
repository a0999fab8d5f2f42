"""A calendar month of UTC: the width of a partition, as instants, as keys and as a name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH, instant_of, is_time_ordered, uuid7_floor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

SLACK = timedelta(days=1)
"""How far an instant may lie outside the month of its key: clocks differ at the month's end."""

_DECEMBER = 12
_SUFFIX = re.compile(r"y(\d{4})m(\d{2})")
# The last month whose end Python still has an instant for.
_LAST = (9999, 11)


@dataclass(frozen=True, order=True)
class Month:
    """A month of UTC, from 1970-01 to 9999-11; raise InvalidValueError for another one."""

    year: int
    number: int

    def __post_init__(self) -> None:
        is_named = 1 <= self.number <= _DECEMBER
        if not (is_named and (EPOCH.year, 1) <= (self.year, self.number) <= _LAST):
            raise InvalidValueError(None, "is no month from 1970-01 to 9999-11")

    @classmethod
    def of(cls, instant: datetime) -> Month:
        """Return the month in which an aware instant lies."""
        found = instant.astimezone(UTC)
        return cls(found.year, found.month)

    @classmethod
    def of_bounds(cls, lower: UUID, upper: UUID) -> Month | None:
        """Return the month whose keys are exactly those from `lower` to below `upper`."""
        if not is_time_ordered(lower):
            return None
        try:
            month = cls.of(instant_of(lower))
        except InvalidValueError:
            return None
        return month if (month.lower_id, month.upper_id) == (lower, upper) else None

    @classmethod
    def of_suffix(cls, suffix: str) -> Month | None:
        """Return the month whose suffix this is."""
        match = _SUFFIX.fullmatch(suffix)
        try:
            return match and cls(int(match[1]), int(match[2]))
        except InvalidValueError:
            return None

    @property
    def first(self) -> datetime:
        """The month's first instant."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first instant after the month."""
        return datetime(*_following(self.year, self.number), 1, tzinfo=UTC)

    @property
    def day(self) -> date:
        """The month's first day, as the table of partitions stores it."""
        return self.first.date()

    @property
    def lower_id(self) -> UUID:
        """The least key of the month."""
        return uuid7_floor(self.first)

    @property
    def upper_id(self) -> UUID:
        """The least key after the month."""
        return uuid7_floor(self.end)

    @property
    def suffix(self) -> str:
        """What the name of the month's partition ends with, such as y2026m11; it sorts."""
        return f"y{self.year:04}m{self.number:02}"

    def next(self) -> Month:
        """Return the month after this one."""
        return Month(*_following(self.year, self.number))

    def and_following(self, count: int) -> Iterator[Month]:
        """Iterate over this month and `count` more."""
        month = self
        for _ in range(count):
            yield month
            month = month.next()
        yield month

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


def _following(year: int, number: int) -> tuple[int, int]:
    return (year + 1, 1) if number == _DECEMBER else (year, number + 1)
