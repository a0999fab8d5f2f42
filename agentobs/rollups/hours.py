"""Hours and days of UTC, as instants and as keys: a row lies in the hour that its key lies in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Interval,
    Text,
    Uuid,
    case,
    cast,
    column,
    extract,
    func,
    literal,
)
from sqlalchemy.dialects.postgresql import BIT

from agentobs.keys import EPOCH, uuid7_floor

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import ColumnElement, Function, TableValuedAlias

_LAST = datetime.max.replace(tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_HOUR_SECONDS, _HOUR_MS = 3600, 3_600_000
_INSTANT = DateTime(timezone=True)
ONE_HOUR = literal(HOUR, Interval)
# An interval of a day is one of the session's time zone.
ONE_DAY = func.make_interval(0, 0, 0, 0, DAY // HOUR, type_=Interval)


def floor_to(instant: datetime, width: timedelta) -> datetime:
    """Return the beginning of the hour or day that an instant lies in."""
    return instant - (instant - EPOCH) % width


def ceil_to(instant: datetime, width: timedelta) -> datetime:
    """Return the first beginning of an hour or day that is not before an instant.

    Where Python knows none, it is the last instant that it knows.
    """
    return instant + min((EPOCH - instant) % width, _LAST - instant)


def key_at(hour: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the least key of an hour, as `uuid7_floor` has it.

    The server's own function for it has a name without a schema.
    """
    milliseconds = cast(extract("epoch", hour) * 1000, BigInteger)
    digits = func.lpad(func.to_hex(milliseconds), 12, "0", type_=Text)
    return cast(digits.concat("70008000000000000000"), Uuid)


def hour_at(key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the hour that any key lies in, as `hour_of` has it."""
    digits = func.translate(func.left(cast(key, Text), 13), "-", "", type_=Text)
    # 48 bits, and zeros before them: only from bits do digits become a number.
    milliseconds = cast(cast(literal("x0000", Text).concat(digits), BIT(64)), BigInteger)
    hour = func.to_timestamp(milliseconds // _HOUR_MS * _HOUR_SECONDS, type_=_INSTANT)
    return case((key >= key_at(hour), hour), else_=hour - ONE_HOUR)


def key_floor(instant: datetime) -> UUID:
    """Return the least key of an instant; a step may begin before 1970, where keys do."""
    return uuid7_floor(max(instant, EPOCH))


def day_of(hour: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the day of UTC that an hour lies in."""
    return func.date_trunc("day", hour, "UTC")


def hour_of(key: UUID) -> datetime:
    """Return the hour that any key lies in, of whichever version."""
    instant = EPOCH + timedelta(milliseconds=key.int >> 80)
    hour = floor_to(instant, HOUR)
    # The least UUIDv7 of an hour is not the least of all UUIDs that begin as it does.
    return hour if key >= uuid7_floor(hour) else hour - HOUR


def as_table(instants: Function[Any]) -> TableValuedAlias:
    """Return the instants of a function as a table `hours` of one column, `begins_at`."""
    values = instants.table_valued(column("begins_at", _INSTANT), name="hours")
    return values.render_derived()
