"""Bring archived rows back, and see that they are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.bulk import copy_lines_to
from agentobs.errors import ArchiveMismatchError
from agentobs.maintenance.archive.extra import require_extra
from agentobs.maintenance.archive.lines import lines_of
from agentobs.maintenance.archive.parquet import batches_from, layout_of
from agentobs.maintenance.archive.read import DATA, check_bytes, checked_batches, find, manifest_in
from agentobs.maintenance.archive.source import (
    columns_of,
    fingerprint,
    fixed_settings,
    has_original_ids,
    is_empty,
)
from agentobs.maintenance.statements import statement_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.maintenance.archive.folders import Folder
    from agentobs.maintenance.archive.manifest import Manifest
    from agentobs.maintenance.archive.read import Progress
    from agentobs.maintenance.tables import EventTable, Schema

# The server reads on while the next piece is made.
_PIECE = 512 * 1024
_STAGING = "agentobs_loaded_original_ids"
_CREATE_STAGING = text(f"CREATE TEMPORARY TABLE {_STAGING} (id uuid, original_id uuid)")
_TAKE_STAGED = """
    INSERT INTO {originals} (id, original_id)
    SELECT id, original_id FROM pg_temp.{staging} WHERE original_id IS NOT NULL
    ON CONFLICT DO NOTHING
"""
_DROP_STAGING = text(f"DROP TABLE pg_temp.{_STAGING}")


async def load_archive(
    connection: AsyncConnection,
    location: str | Path,
    *,
    schema: Schema,
    table: EventTable,
    into: str,
    progress: Progress | None = None,
) -> Manifest:
    """Copy the rows of an archive of `table` into the empty table `into`, and compare them.

    It is part of the connection's transaction: roll that back after an error. `into` has the
    archived columns; others that it has get their default, for they were added later. The ids
    that the rows had before they were ordered by time go back to their table, where it is there.

    Raises ArchiveDamagedError, ArchiveFormatError, ArchiveMismatchError for an archive of another
    table, for a table that lacks a column or is not empty, and where the rows are others after
    they were loaded; and the errors of a statement.
    """
    require_extra()
    loading = _Loading(*find(location))
    if loading.manifest.table != table.name:
        raise loading.mismatch(f"it is an archive of {loading.manifest.table}, not {table.name}")
    await loading.require_place(connection, schema, into)
    loading.check_bytes()
    async with fixed_settings(connection):
        await loading.copy_rows(connection, schema, into, progress)
        if loading.manifest.original_ids and await has_original_ids(connection, schema, table):
            await loading.copy_original_ids(connection, schema.qualified(table.original_ids))
    await loading.compare(connection, schema, into)
    return loading.manifest


class _Loading:
    """An archive on its way into a table."""

    def __init__(self, folder: Folder, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self.manifest = manifest_in(folder, stem)
        self._shown = folder.shown(stem + DATA)

    def mismatch(self, reason: str) -> ArchiveMismatchError:
        return ArchiveMismatchError(self._shown, reason)

    async def require_place(self, connection: AsyncConnection, schema: Schema, into: str) -> None:
        columns = {column.name for column in await columns_of(connection, schema, into)}
        if missing := [name for name in self.manifest.column_names if name not in columns]:
            raise self.mismatch(
                f"the table {into} lacks the columns {', '.join(missing)}: add them, "
                "of the types that the manifest names"
            )
        if not await is_empty(connection, schema, into):
            raise self.mismatch(f"the table {into} is not empty: load into a new one")

    def check_bytes(self) -> None:
        check_bytes(self._folder, self._stem, self.manifest)

    async def copy_rows(
        self, connection: AsyncConnection, schema: Schema, into: str, progress: Progress | None
    ) -> None:
        columns = self.manifest.columns
        places = [place for place, column in enumerate(columns) if not column.generated]
        batches = (
            [texts[place] for place in places]
            for texts in checked_batches(self._folder, self._stem, self.manifest, progress)
        )
        names = [columns[place].name for place in places]
        await copy_lines_to(connection, into, names, _lines(batches), schema=schema.name)

    async def copy_original_ids(self, connection: AsyncConnection, originals: str) -> None:
        await connection.execute(_CREATE_STAGING)
        names = ("id", "original_id")
        lines = _lines(self._original_ids())
        await copy_lines_to(connection, _STAGING, names, lines, schema="pg_temp")
        # They may never have been taken away.
        take = statement_with(_TAKE_STAGED, originals=originals, staging=_STAGING)
        await connection.execute(take)
        await connection.execute(_DROP_STAGING)

    async def compare(self, connection: AsyncConnection, schema: Schema, into: str) -> None:
        found = await fingerprint(connection, schema, into, self.manifest.column_names)
        if found != self.manifest.fingerprint:
            raise self.mismatch(
                f"the rows in {into} are others than were archived: nothing may be kept of them"
            )

    def _original_ids(self) -> Iterable[list[Any]]:
        wanted = ["id", str(self.manifest.original_id_column)]
        layout = layout_of(self.manifest)
        with self._folder.open(self._stem + DATA) as file:
            for batch in batches_from(file, layout, self._shown, wanted):
                yield [batch.column(name) for name in wanted]


async def _lines(batches: Iterable[list[Any]]) -> AsyncIterator[bytes]:
    for texts in batches:
        lines = lines_of(texts)
        for begin in range(0, len(lines), _PIECE):
            yield bytes(lines[begin : begin + _PIECE])
