"""Rows by COPY, within the caller's transaction: the only place that speaks it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, inspect, text
from sqlalchemy.ext.asyncio import AsyncSession

from agentobs.errors import DatabaseError, InvalidValueError
from agentobs.models.time_ordered import instant_column, instant_of_key, key_of_instant
from agentobs.sessions.failures import driver_errors_explained
from agentobs.sessions.pool_watch import count_query

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )

    from sqlalchemy import Column, Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import PoolProxiedConnection

    from agentobs.models.base import Base

# Where a transaction is to begin, a statement of its own begins it, for COPY goes past SQLAlchemy,
# which begins one late: as the first act it would commit by itself, and a rollback would leave the
# rows there.
_BEGIN = text("SELECT 1")
# A thread that keeps the interpreter for the whole switch interval of 5 ms computes: it is no event
# loop that wants to go on soon, and would leave us a sixth of the time.
_LONG_PAUSE = 0.002
_MORE_BESIDE_BUSY = 4


async def copy_rows(
    target: AsyncSession | AsyncConnection,
    model: type[Base],
    rows: Sequence[Mapping[str, Any]],
) -> int:
    """Copy rows, by the names of columns, into the model's table; return how many they are.

    The rows are part of the transaction of `target`, which the caller commits; in autocommit they
    are one by themselves. All of them name the same columns, and those that they leave out get
    the database's defaults, not the model's; but a key and the instant that it holds are made of
    each other where one of them is given. Raises InvalidValueError for rows that don't fit
    together, and the errors of a statement.
    """
    if not rows:
        return 0
    connection = await _connection(target)
    table = cast("Table", inspect(model).local_table)
    rows = _with_keys(rows, table)
    names = tuple(rows[0])
    columns = [_column(table, name) for name in names]
    records = list(_records(rows, columns, connection.dialect))
    return await copy_records(connection, model, names, records)


async def copy_records(
    connection: AsyncConnection,
    model: type[Base],
    columns: Sequence[str],
    records: Sequence[tuple[Any, ...]],
    *,
    slice_rows: int = 50,
) -> int:
    """Copy records, which the driver can take as they are, in one COPY; return how many they are.

    They are encoded `slice_rows` at a time, for that keeps the interpreter busy: in between the
    other tasks of the loop go on, and the other threads. As for `copy_rows`, the rows are part of
    the connection's transaction, and in autocommit one by themselves. Raises the errors of a
    statement.
    """
    return await _copy(
        connection,
        "copy_records_to_table",
        cast("Table", inspect(model).local_table).name,
        schema_name=schema_of(connection),
        columns=columns,
        records=_in_slices(records, slice_rows),
    )


async def copy_lines_to(
    connection: AsyncConnection,
    table: str,
    columns: Sequence[str],
    lines: AsyncIterable[bytes],
    *,
    schema: str,
) -> int:
    """Copy rows in COPY's text format into any table; return how many they are.

    `lines` are taken one by one as the server takes them, and may begin and end anywhere. The
    rows are part of the connection's transaction. Raises the errors of a statement, and those of
    ours that `lines` raise.
    """
    return await _copy(
        connection,
        "copy_to_table",
        table,
        schema_name=schema,
        columns=columns,
        source=lines,
        format="text",
    )


async def copy_lines_from(
    connection: AsyncConnection, query: str, sink: Callable[[bytes], Awaitable[None]]
) -> int:
    """Hand the rows of a query to `sink`, in COPY's text format; return how many they are.

    The server goes on when `sink` has done with what it got. Raises the errors of a statement,
    and those of ours that `sink` raises.
    """
    return await _copy(connection, "copy_from_query", query, output=sink, format="text")


def schema_of(connection: AsyncConnection) -> str | None:
    """Return the schema that the tables are in, where one was chosen."""
    options = cast("Connection", connection.sync_connection).get_execution_options()
    return cast("str | None", options.get("schema_translate_map", {}).get(None))


async def _copy(connection: AsyncConnection, method: str, *arguments: Any, **options: Any) -> int:
    raw = await connection.get_raw_connection()
    if not _is_ready(connection, raw):
        await connection.execute(_BEGIN)
    count_query(raw)
    try:
        with driver_errors_explained():
            status: str = await getattr(raw.driver_connection, method)(*arguments, **options)
    except DatabaseError:
        # As after a statement of SQLAlchemy's, the next transaction gets another connection; one
        # that goes on is kept: who gives the rows may have failed.
        if cast("Any", raw.driver_connection).is_closed():
            await connection.invalidate()
        raise
    return int(status.rpartition(" ")[2])


def _is_ready(connection: AsyncConnection, raw: PoolProxiedConnection) -> bool:
    driver, adapted = cast("Any", raw.driver_connection), cast("Any", raw.dbapi_connection)
    if driver.is_closed():
        # A statement of SQLAlchemy's finds that out as well, and lets another one be opened.
        return False
    in_autocommit = connection.dialect.detect_autocommit_setting(adapted)
    return in_autocommit or bool(driver.is_in_transaction())


async def _in_slices(
    records: Sequence[tuple[Any, ...]], rows: int
) -> AsyncIterator[tuple[Any, ...]]:
    start, size = 0, rows
    while start < len(records):
        for record in records[start : start + size]:
            yield record
        start += size
        if start < len(records):
            await asyncio.sleep(0)
            size = _MORE_BESIDE_BUSY * rows if _pause() > _LONG_PAUSE else rows


def _pause() -> float:
    """Leave the interpreter to another thread, where one waits; return for how many seconds.

    Who only gives it up has it back before another thread is awake: that takes a sleep, which the
    system makes 50 microseconds long.
    """
    began = time.perf_counter()
    time.sleep(0.000_001)
    return time.perf_counter() - began


async def _connection(target: AsyncSession | AsyncConnection) -> AsyncConnection:
    if not isinstance(target, AsyncSession):
        return target
    # As before any statement of the session: the rows may name objects that it has not written.
    await target.flush()
    return await target.connection()


def _with_keys(rows: Sequence[Mapping[str, Any]], table: Table) -> Sequence[Mapping[str, Any]]:
    instant, given = instant_column(table), rows[0].keys()
    if instant is None or ("id" in given) == (instant.name in given):
        return rows
    if any("id" in row and instant.name in row for row in rows):
        # Of another set of columns than the first row's: refused below, and not overwritten here.
        return rows
    if "id" in given:
        return [{**row, instant.name: instant_of_key(row.get("id"))} for row in rows]
    return [{**row, "id": key_of_instant(str(instant), row.get(instant.name))} for row in rows]


def _column(table: Table, name: str) -> Column[Any]:
    if name not in table.columns:
        raise InvalidValueError(f"{table.name}.{name}", "is no column of this table")
    return table.columns[name]


def _records(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column[Any]], dialect: Dialect
) -> Iterator[tuple[Any, ...]]:
    processors = [(column, _processor(column, dialect)) for column in columns]
    for row in rows:
        if len(row) != len(columns):
            raise InvalidValueError(None, "of another set of columns than the first row's")
        yield tuple(_value(row, column, process) for column, process in processors)


def _processor(column: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what SQLAlchemy does to a value of the column before the driver sees it."""
    return column.type.dialect_impl(dialect).bind_processor(dialect)


def _value(
    row: Mapping[str, Any], column: Column[Any], process: Callable[[Any], Any] | None
) -> Any:
    if column.name not in row:
        raise InvalidValueError(f"{column.table.name}.{column.name}", "is missing in a row")
    value = row[column.name]
    if process is None:
        return value
    try:
        return process(value)
    except Exception as error:  # noqa: BLE001 (a type of the host may raise anything)
        # The words of others may quote the value.
        rule = error.rule if isinstance(error, InvalidValueError) else "is of another type"
        raise InvalidValueError(f"{column.table.name}.{column.name}", rule) from None
