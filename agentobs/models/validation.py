"""Refuse a bad value where it is assigned, by the rule that its column's type states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, Boolean, Column, Integer, Numeric, String, Uuid, inspect
from sqlalchemy.sql import ClauseElement

from agentobs.errors import InvalidValueError
from agentobs.jsonb import encode, require_storable_text
from agentobs.models.types import AwareTimestamp, require_aware

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper

# A rule returns the value to store, or raises ValueError with what the column wants.
Rule = Callable[[Any], Any]

# What most values are of: the question whether they are SQL costs as much as their check.
_PLAIN_TYPES = frozenset({str, int, bool, float, dict, list, Decimal, UUID, datetime})
_INTEGER_MIN, _INTEGER_MAX = -(2**31), 2**31 - 1
_FOUR_PLACES = Decimal("0.0001")
_TEN = Decimal(10)


@cache
def checks_of(model: type) -> Mapping[str, Rule]:
    """Return what each column of a model makes of a value that is assigned to it.

    A check returns the value to store, or raises InvalidValueError. Statements that bypass the
    models (Core, COPY) answer to the database's own constraints.
    """
    mapper: Mapper[Any] = inspect(model)
    return {
        attribute.key: _checker(attribute.columns[0])
        for attribute in mapper.column_attrs
        if isinstance(attribute.columns[0], Column)
    }


def _checker(column: Column[Any]) -> Rule:
    rule, name = _rule_of(column), f"{column.table.name}.{column.name}"
    may_be_none = column.nullable or column.primary_key

    def check(value: Any) -> Any:
        # The primary key is None until the flush makes it.
        if value is None and may_be_none:
            return None
        if type(value) not in _PLAIN_TYPES and _is_sql(value):
            return value
        if value is None:
            raise InvalidValueError(name, "must not be None")
        try:
            return rule(value)
        except ValueError as error:
            # The value itself may be a secret: only the rule's own words go on.
            raise InvalidValueError(name, str(error)) from None

    return check


def _is_sql(value: Any) -> bool:
    """Tell what is the database's to judge; `Model.column` only stands for a ClauseElement."""
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def _rule_of(column: Column[Any]) -> Rule:
    kind = column.type
    if "bounds" in column.info:
        return partial(_within, *column.info["bounds"])
    if "earliest" in column.info:
        return partial(_since, column.info["earliest"])
    if isinstance(kind, String):
        return partial(_text, kind.length)
    if isinstance(kind, ARRAY):
        return _texts
    return next((rule for type_, rule in _RULES if isinstance(kind, type_)), _anything)


def _within(lowest: int, highest: int, value: Any) -> Decimal:
    """Round to the four places that numeric(5,4) keeps, then compare, as PostgreSQL does.

    So 1.0000000000000002, which a weighted sum of floats may come to, is a confidence of 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"must be a number, got {type(value).__name__}")
    number = Decimal(str(value))
    if number.is_finite() and abs(number) < _TEN:
        number = number.quantize(_FOUR_PLACES, rounding=ROUND_HALF_UP)
        if lowest <= number <= highest:
            return number
    raise ValueError(f"must be within {lowest} and {highest}, got {value}")


def _since(earliest: datetime, value: Any) -> datetime:
    instant = require_aware(value)
    if instant < earliest:
        raise ValueError(f"must not lie before {earliest:%Y}, where time-ordered keys begin")
    return instant


def _text(length: int | None, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a str, got {type(value).__name__}")
    if length is not None and len(value) > length:
        raise ValueError(f"holds at most {length} characters, got {len(value)}")
    require_storable_text(value)
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"must be a list of str, got {type(value).__name__}")
    return [_text(None, item) for item in value]


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be an int, got {type(value).__name__}")
    if not _INTEGER_MIN <= value <= _INTEGER_MAX:
        raise ValueError(f"must be within {_INTEGER_MIN} and {_INTEGER_MAX}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be a bool, got {type(value).__name__}")
    return value


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError):
        raise ValueError("must be a UUID or its text form") from None


def _json(value: Any) -> Any:
    """Refuse early what jsonb can't hold; the flush encodes anew, for the value may change."""
    try:
        encode(value)
    except TypeError as error:
        raise ValueError(f"must be JSON: {error}") from None
    return value


def _anything(value: Any) -> Any:
    return value


_RULES: tuple[tuple[type, Rule], ...] = (
    (AwareTimestamp, require_aware),
    (Boolean, _boolean),
    (Integer, _integer),
    (JSON, _json),
    (Numeric, partial(_within, -9, 9)),
    (Uuid, _uuid),
)
