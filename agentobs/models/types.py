"""Column types that refuse what the driver would store silently as something else."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.types import DateTime, TypeDecorator, TypeEngine

from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.sql.operators import OperatorType


class AwareTimestamp(TypeDecorator[datetime]):
    """A timestamptz that takes aware datetimes only, in WHERE clauses too.

    asyncpg reads a naive datetime as local time of the machine, without a word.
    """

    # Not the dialect's TIMESTAMP: SQLAlchemy types `started_at + timedelta(…)` by the class of
    # impl, and makes of that one a timestamp without time zone, which takes no aware datetime.
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime."""
        del dialect
        try:
            return value if value is None else require_aware(value)
        except ValueError as error:
            raise InvalidValueError(None, str(error)) from None

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Keep intervals what they are: `started_at - timedelta(days=7)` binds an interval.

        A date is midnight in the time zone of whoever asks: it is refused like a naive datetime.
        """
        if isinstance(value, date):
            return self
        return self.impl_instance.coerce_compared_value(op, value)


def require_aware(value: Any) -> datetime:
    """Return `value` when it is a datetime with a time zone; raise ValueError otherwise."""
    if not isinstance(value, datetime):
        raise ValueError(f"must be a datetime, got {type(value).__name__}")
    if value.utcoffset() is None:
        raise ValueError("must have a time zone, got a naive datetime: use datetime.now(UTC)")
    return value
