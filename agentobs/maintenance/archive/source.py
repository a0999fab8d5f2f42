"""The rows that are archived, and what the database says of them: all of it from one snapshot."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, column, func, literal_column, select, table, text
from sqlalchemy.dialects import postgresql

from agentobs.errors import ConfigurationError, InvalidValueError, SchemaMismatchError
from agentobs.maintenance.archive.manifest import ArchivedColumn, Fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sqlalchemy import ColumnElement, Dialect, FromClause, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.maintenance.archive.manifest import Manifest
    from agentobs.maintenance.months import Month
    from agentobs.maintenance.tables import EventTable, Schema

# Another parameter style would double each % in a name.
_DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]

# What the text of a value depends on, as pg_dump has it. Rows that a policy hides would be lost:
# without row security the server refuses the statement instead.
_SETTINGS = {
    "bytea_output": "hex",
    "datestyle": "ISO, YMD",
    "extra_float_digits": "1",
    "intervalstyle": "postgres",
    "lc_monetary": "C",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "xmloption": "content",
}

_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_COLUMNS = text(
    """
    SELECT attname, format_type(atttypid, atttypmod), attgenerated <> ''
    FROM pg_attribute
    WHERE attrelid = to_regclass(:relation) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
    """
)
_EXISTS = text("SELECT to_regclass(:relation) IS NOT NULL")
_SERVER = text("SELECT current_database(), current_setting('server_version')")
_VERSION_TABLE = "agentobs_alembic_version"


@dataclass(frozen=True)
class ArchiveSource:
    """A table to archive: a partition of an event table, attached or not, and its month."""

    schema: Schema
    table: EventTable
    partition: str
    month: Month | None = None


@dataclass(frozen=True)
class SourceFacts:
    """What the database says of the rows."""

    columns: tuple[ArchivedColumn, ...]
    fingerprint: Fingerprint
    earliest: str | None
    latest: str | None
    has_original_ids: bool
    database: str
    postgresql_version: str
    schema_revision: str | None


@asynccontextmanager
async def one_snapshot(connection: AsyncConnection) -> AsyncIterator[None]:
    """Read in a transaction of its own, which sees the same rows from first to last."""
    async with connection.begin():
        await connection.execute(_SNAPSHOT)
        async with fixed_settings(connection):
            yield


@asynccontextmanager
async def fixed_settings(connection: AsyncConnection) -> AsyncIterator[None]:
    """Make values have one text, whatever the session has set; after an error, roll back.

    Raises ConfigurationError for a connection in autocommit, where the settings don't last.
    """
    before = await _current(connection)
    await _set(connection, _SETTINGS)
    if await _current(connection) != _SETTINGS:
        raise ConfigurationError("an archive is not made in autocommit: use another connection")
    yield
    await _set(connection, before)


async def read_facts(
    connection: AsyncConnection, source: ArchiveSource, wanted: Sequence[str] | None
) -> SourceFacts:
    """Ask for all that the manifest tells of the rows; None wants every column.

    Raises SchemaMismatchError where the table is missing, or one of its columns.
    """
    columns = _chosen(await columns_of(connection, source.schema, source.partition), wanted, source)
    names = [found.name for found in columns]
    rows = _table(source.schema, source.partition, {*names, source.table.instant})
    instant = rows.c[source.table.instant]
    summary = _summary(rows, names).add_columns(
        cast(func.min(instant), Text), cast(func.max(instant), Text)
    )
    count, hashes, earliest, latest = (await connection.execute(summary)).one()
    database, version = (await connection.execute(_SERVER)).one()
    return SourceFacts(
        columns=columns,
        fingerprint=Fingerprint(count, hashes),
        earliest=earliest,
        latest=latest,
        has_original_ids=wanted is None
        and await has_original_ids(connection, source.schema, source.table),
        database=database,
        postgresql_version=version,
        schema_revision=await _revision(connection, source.schema),
    )


async def columns_of(
    connection: AsyncConnection, schema: Schema, name: str
) -> tuple[ArchivedColumn, ...]:
    """Return the columns of a table in the catalog's order; none where there is no such table."""
    async with fixed_settings(connection):
        found = await connection.execute(_COLUMNS, {"relation": schema.qualified(name)})
    return tuple(
        ArchivedColumn(name=name, type=type_, generated=generated)
        for name, type_, generated in found
    )


async def is_empty(connection: AsyncConnection, schema: Schema, name: str) -> bool:
    """Tell whether a table has no rows."""
    rows: Select[Any] = select(literal_column("1")).select_from(_table(schema, name, ()))
    return (await connection.execute(rows.limit(1))).first() is None


async def fingerprint(
    connection: AsyncConnection, schema: Schema, name: str, columns: Collection[str]
) -> Fingerprint:
    """Compute the fingerprint of a table's rows, as far as these columns go.

    Every row is read. The order of rows and columns makes no difference to it, and neither do
    the settings of the session.
    """
    async with fixed_settings(connection):
        summary = _summary(_table(schema, name, columns), columns)
        return Fingerprint(*(await connection.execute(summary)).one())


async def is_unchanged(
    connection: AsyncConnection, schema: Schema, name: str, manifest: Manifest
) -> bool:
    """Tell whether a table still holds what was archived of it: columns and rows."""
    columns = await columns_of(connection, schema, name)
    if manifest.kind == "rows" and set(columns) != set(manifest.columns):
        return False
    if not set(manifest.columns) <= set(columns):
        return False
    return manifest.fingerprint == await fingerprint(
        connection, schema, name, manifest.column_names
    )


async def has_original_ids(connection: AsyncConnection, schema: Schema, table: EventTable) -> bool:
    """Tell whether the table of the ids that rows had before is there."""
    return await _exists(connection, schema, table.original_ids)


def rows_query(source: ArchiveSource, facts: SourceFacts) -> str:
    """Return the statement that reads the rows, for COPY, which takes no parameters."""
    names = [column.name for column in facts.columns]
    rows = _table(source.schema, source.partition, names)
    query = select(*(rows.c[name] for name in names)).order_by(rows.c.id)
    if facts.has_original_ids:
        originals = _table(
            source.schema, source.table.original_ids, ("id", "original_id"), alias="originals"
        )
        # A look-up for each row: a join might read the ids of all months.
        original = select(originals.c.original_id).where(originals.c.id == rows.c.id)
        query = query.add_columns(original.scalar_subquery())
    return str(query.compile(dialect=_DIALECT))


def _summary(rows: FromClause, names: Collection[str]) -> Select[*tuple[Any, ...]]:
    # By name, for a table that was made anew may have its columns in another order.
    row = cast(func.row(*(rows.c[name] for name in sorted(names))), Text)
    hash_ = func.hashtextextended(row.collate("C"), literal_column("0"))
    hashes = cast(func.coalesce(func.sum(hash_), literal_column("0")), Text)
    summary: Select[*tuple[Any, ...]] = select(func.count(), hashes)
    return summary.select_from(rows)


def _table(
    schema: Schema, name: str, columns: Collection[str], *, alias: str = "archived"
) -> FromClause:
    return table(name, *map(column, columns), schema=schema.name).alias(alias)


def _chosen(
    found: tuple[ArchivedColumn, ...], wanted: Sequence[str] | None, source: ArchiveSource
) -> tuple[ArchivedColumn, ...]:
    names = {column.name for column in found}
    if missing := {"id", source.table.instant, *(wanted or ())} - names:
        raise SchemaMismatchError(
            f"the table {source.partition} is missing, or its columns {', '.join(sorted(missing))}",
            table=source.partition,
        )
    if wanted is None:
        return found
    if not wanted:
        raise InvalidValueError(None, "must name at least one column of the payload")
    return tuple(column for column in found if column.name in {"id", *wanted})


async def _revision(connection: AsyncConnection, schema: Schema) -> str | None:
    if not await _exists(connection, schema, _VERSION_TABLE):
        return None
    versions = _table(schema, _VERSION_TABLE, ("version_num",))
    revision: str | None = await connection.scalar(select(versions.c.version_num))
    return revision


async def _exists(connection: AsyncConnection, schema: Schema, name: str) -> bool:
    return bool(await connection.scalar(_EXISTS, {"relation": schema.qualified(name)}))


async def _current(connection: AsyncConnection) -> dict[str, str]:
    settings = select(*(func.current_setting(name) for name in _SETTINGS))
    return dict(zip(_SETTINGS, (await connection.execute(settings)).one(), strict=True))


async def _set(connection: AsyncConnection, values: dict[str, str]) -> None:
    local: ColumnElement[bool] = literal_column("true")
    await connection.execute(
        select(*(func.set_config(name, value, local) for name, value in values.items()))
    )
