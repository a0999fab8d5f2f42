"""Aggregates that the questions share; each is NULL where no row has a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Integer, cast, func, literal

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstrumentedAttribute

    Value = ColumnElement[Any] | InstrumentedAttribute[Any]


def mean(value: Value) -> ColumnElement[float]:
    """Return the arithmetic mean; the server adds up exactly, and the result alone is a float."""
    return cast(func.avg(value), Double)


def rate(condition: Value) -> ColumnElement[float]:
    """Return the share, 0 to 1, of rows for which the condition holds, of those that know it."""
    return mean(cast(condition, Integer))


def percentile(value: Value, share: float) -> ColumnElement[Any]:
    """Return the least value that so large a share of values does not exceed: one that occurs.

    Several percentiles of one column sort its values once.
    """
    return func.percentile_disc(literal(share, Double)).within_group(value.asc())
