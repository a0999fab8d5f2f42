"""The key and the instant of a row, made together: each from the other where one is given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentobs.errors import InvalidValueError
from agentobs.keys import instant_of, uuid7_at
from agentobs.models.types import require_aware

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Table
    from sqlalchemy.engine.default import DefaultExecutionContext


def key_from(table: str, instant: str) -> Callable[[DefaultExecutionContext], UUID]:
    """Return the default of a key: it is made of the row's `instant`, or of now without one.

    A default knows only the values of its own statement: where the instant is an SQL expression,
    the key is one of now.
    """

    def make(context: DefaultExecutionContext) -> UUID:
        return key_of_instant(f"{table}.{instant}", _value(context, instant))

    return make


def key_of_instant(column: str, instant: datetime | None) -> UUID:
    """Make the key of an instant, None being now; raise InvalidValueError that names `column`."""
    try:
        return uuid7_at(datetime.now(UTC) if instant is None else require_aware(instant))
    except InvalidValueError as error:
        raise InvalidValueError(column, error.rule) from None
    except ValueError as error:
        raise InvalidValueError(column, str(error)) from None


def instant_from_key(context: DefaultExecutionContext) -> datetime:
    """Return the default of an instant: the one that the row's key holds, else now.

    The key has its value by then, for defaults are made in the order of the columns.
    """
    return instant_of_key(_value(context, "id"))


def instant_of_key(key: Any) -> datetime:
    """Return the instant that a key holds; now where it is foreign, or not there.

    A key that is no UUID, nor the text of one, is the database's to refuse.
    """
    try:
        found = key if isinstance(key, UUID) else UUID(key)
        return instant_of(found)
    except (AttributeError, TypeError, ValueError):
        return datetime.now(UTC)


def instant_column(table: Table) -> Column[Any] | None:
    """Return the column whose instant the table's key holds; None for a table without one."""
    return next((column for column in table.columns if "earliest" in column.info), None)


def _value(context: DefaultExecutionContext, name: str) -> Any:
    """Return the value that the row has for a column so far; None where it has none.

    A statement with the VALUES of several rows holds the values of all of them, told apart by a
    suffix that the first row's defaults lack. (`get_current_parameters()` should know, but fails
    where the statement names a model.)
    """
    values = context.current_parameters or {}
    column: Any = context.current_column
    suffix = column.key.removeprefix(getattr(column, "original", column).key)
    names = (f"{name}{suffix}",) if suffix else (name, f"{name}_m0")
    return next((values[key] for key in names if key in values), None)
