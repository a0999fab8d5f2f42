"""Time-ordered keys: UUIDv7, made from an instant and read back to it.

The key of an event holds the instant at which it began: milliseconds in the first 48 bits, the
fraction of the millisecond in the 12 bits of rand_a (RFC 9562, section 6.2, method 3, as
PostgreSQL 18's `uuidv7()` has it), 62 random bits behind. So the order of keys is the order of
instants, to the microsecond, and a range of keys is a window of time. Python's `uuid7()` and the
packages at hand make keys of now, or leave the fraction to chance.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agentobs.errors import InvalidValueError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The first instant that a key can hold; the last one that Python knows fits too."""

_MICROSECOND = timedelta(microseconds=1)
_VERSION = 7
# A tick is 1/4096 of a millisecond: 4.096 of them make a microsecond, so each microsecond has ticks
# of its own, and comes back as the last one that begins before the end of its tick.
_TICK_BITS = 12
_TICKS, _MICROSECONDS = 4096, 1000
_NANOSECONDS = 1000
_RANDOM_BITS = 62
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1


def uuid7_at(instant: datetime) -> UUID:
    """Make a key of `instant`; two calls for one instant make two keys, in random order.

    Raises InvalidValueError for a naive datetime, and for one before 1970.
    """
    return _key(instant, int.from_bytes(os.urandom(8)) & _RANDOM_MASK)


def uuid7_with(instant: datetime, random: int) -> UUID:
    """Make a key of `instant` with 62 random bits of the caller's.

    For who makes thousands a second: the system's random bits cost a system call each. Raises as
    `uuid7_at`.
    """
    return _key(instant, random)


def uuid7_now(random: int) -> UUID:
    """Make a key of now, as `uuid7_with` does of `datetime.now(UTC)`, in half the time."""
    return _key_of(time.time_ns() // _NANOSECONDS, random)


def uuid7_floor(instant: datetime) -> UUID:
    """Return the least key of an instant, a bound for windows of time.

    `id >= uuid7_floor(since)` holds for the rows with `started_at >= since`.

    Raises InvalidValueError for a naive datetime, and for one before 1970.
    """
    return _key(instant, 0)


def instant_of(key: UUID) -> datetime:
    """Return the instant of a key, in UTC, as it was given to the microsecond.

    A key that was made elsewhere, of a finer clock, gives the microsecond that it lies in.
    Raises InvalidValueError for a UUID of another version, which holds no instant.
    """
    if not is_time_ordered(key):
        raise InvalidValueError(None, "is no UUIDv7: it holds no instant")
    ticks = (key.int >> 80) << _TICK_BITS | key.int >> 64 & (_TICKS - 1)
    try:
        return EPOCH + timedelta(microseconds=((ticks + 1) * _MICROSECONDS - 1) // _TICKS)
    except OverflowError:
        raise InvalidValueError(None, "is a UUIDv7 of an instant beyond the year 9999") from None


def is_time_ordered(key: UUID) -> bool:
    """Tell whether a UUID is a UUIDv7, which holds an instant."""
    return key.version == _VERSION


def _key(instant: datetime, random: int) -> UUID:
    if instant.utcoffset() is None:
        raise InvalidValueError(None, "must have a time zone, got a naive datetime")
    if instant < EPOCH:
        raise InvalidValueError(None, "must not lie before 1970, where time-ordered keys begin")
    return _key_of((instant - EPOCH) // _MICROSECOND, random)


def _key_of(microseconds: int, random: int) -> UUID:
    ticks = microseconds * _TICKS // _MICROSECONDS
    milliseconds, fraction = ticks >> _TICK_BITS, ticks & (_TICKS - 1)
    return UUID(
        int=milliseconds << 80 | _VERSION << 76 | fraction << 64 | 0b10 << _RANDOM_BITS | random
    )
