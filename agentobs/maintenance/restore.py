"""Bring an archived month back, and keep it until it is released."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.errors import MaintenanceError
from agentobs.maintenance.archive import load_archive, read_manifest
from agentobs.maintenance.columns import columns_of, count_differing
from agentobs.maintenance.ddl import execute_ddl
from agentobs.maintenance.draining import move_rows, set_foreign_keys_aside
from agentobs.maintenance.locks import TableLock, look_around, maintenance_lock, with_locks
from agentobs.maintenance.months import Month
from agentobs.maintenance.partitions import (
    attach,
    create_like,
    declare_foreign_keys,
    index_names,
    locks_to_attach,
    rename_indexes,
    revoke_default_grants,
)
from agentobs.maintenance.rollups import take_rows_back
from agentobs.maintenance.statements import statement_with
from agentobs.maintenance.states import note_payload_restored, note_released, note_restored
from agentobs.maintenance.tables import EVENT_TABLES, MonthPartition
from agentobs.maintenance.workplace import Run, Watcher, open_run
from agentobs.migrations.connection import quoted
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agentobs.maintenance.archive import Manifest
    from agentobs.settings import DatabaseSettings

# So few that a writer of one of them does not notice.
_CHUNK = 1000
_EXISTS = text("SELECT to_regclass(:table) IS NOT NULL")
_MERGE = """
    INSERT INTO {leaf} ({columns}) OVERRIDING SYSTEM VALUE
    SELECT {columns} FROM {loaded} ON CONFLICT (id) DO NOTHING
"""
_GIVE = """
    WITH loaded AS (
        DELETE FROM {loaded} WHERE id IN (SELECT id FROM {loaded} ORDER BY id LIMIT :size)
        RETURNING *
    ),
    given AS (
        UPDATE {leaf} AS rows SET {assigned} FROM loaded WHERE rows.id = loaded.id AND {without}
    )
    SELECT count(*) FROM loaded
"""


async def restore(
    location: str | Path,
    *,
    settings: DatabaseSettings | None = None,
    watcher: Watcher | None = None,
    patience_seconds: float = 60,
) -> Manifest:
    """Bring what an archive holds back into its table; return the archive's manifest.

    A month that is gone becomes a partition again; into one that is there, rows are added that it
    lacks; a payload goes to rows that have none. The month then stays, whatever retention says,
    until it is released. Raises ArchiveError, MaintenanceError, and MaintenanceBlockedError; the
    tables are as they were then.
    """
    manifest = read_manifest(location)
    part = _part_of(manifest)
    async with _alone(settings, watcher, patience_seconds) as run:
        await discard_restoration(run, part)
        await _load(run, part, location, manifest)
        attached = await _attached(run, part)
        if attached is None:
            await _attach(run, part, manifest)
            return manifest
        fill = _merge if manifest.kind == "rows" else _give_payload_back
        await fill(run, attached)
        await discard_restoration(run, part)
    return manifest


async def release(partition: str, *, settings: DatabaseSettings | None = None) -> None:
    """Let retention have a restored month again; raise MaintenanceError where there is none."""
    async with _alone(settings, None, 0) as run:
        for state in await look_around(run):
            for found in state.states:
                part = state.part(found.month)
                if partition in {part.name, part.usual_name} and found.is_restored:
                    async with run.connection.begin():
                        await note_released(run, part)
                    return
    raise MaintenanceError(
        f"{partition} is no month that was restored: look at `agentobs maintain`"
    )


@asynccontextmanager
async def _alone(
    settings: DatabaseSettings | None, watcher: Watcher | None, patience_seconds: float
) -> AsyncIterator[Run]:
    async with (
        open_run(settings or read_settings(), watcher or Watcher(), patience_seconds) as run,
        maintenance_lock(run) as is_ours,
    ):
        if not is_ours:
            raise MaintenanceError(
                "a maintenance or migration run is at work: run this again after its end"
            )
        yield run


def _part_of(manifest: Manifest) -> MonthPartition:
    tables = {table.name: table for table in EVENT_TABLES}
    if manifest.table not in tables or manifest.month is None:
        raise MaintenanceError(
            f"the archive is of {manifest.partition}, which is no month of an event table: load it "
            "with a tool of your choice, it is a Parquet file"
        )
    month = Month(manifest.month.year, manifest.month.month)
    return MonthPartition(tables[manifest.table], month)


async def _attached(run: Run, part: MonthPartition) -> MonthPartition | None:
    """Return the month by the name that its partition has; None where there is none."""
    states = await look_around(run)
    state = next(found for found in states if found.table == part.table)
    return state.part(part.month) if part.month in state.months else None


async def discard_restoration(run: Run, part: MonthPartition) -> None:
    """Drop the table of a restoration, this one's or one that was broken off."""
    loaded = run.schema.qualified(part.restoration)
    is_there = await run.connection.scalar(_EXISTS, {"table": loaded})
    await run.connection.commit()
    if not is_there:
        return

    async def work() -> None:
        await execute_ddl(run.connection, f"DROP TABLE {loaded}")

    await with_locks(
        run, [TableLock(name, "ACCESS EXCLUSIVE") for name in part.table.references], work
    )


async def _load(run: Run, part: MonthPartition, location: str | Path, manifest: Manifest) -> None:
    async with run.connection.begin():
        if manifest.kind == "rows":
            await create_like(run, part, part.restoration)
        else:
            columns = ", ".join(map(quoted, manifest.column_names))
            await execute_ddl(
                run.connection,
                f"CREATE TABLE {run.schema.qualified(part.restoration)} AS "  # noqa: S608
                f"SELECT {columns} FROM {run.schema.qualified(part.table.name)} WITH NO DATA",
            )
            await revoke_default_grants(run, run.schema.qualified(part.restoration))
        await load_archive(
            run.connection,
            location,
            schema=run.schema,
            table=part.table,
            into=part.restoration,
            progress=run.watcher.progressed,
        )
        await execute_ddl(run.connection, f"ANALYZE {run.schema.qualified(part.restoration)}")


async def _attach(run: Run, part: MonthPartition, manifest: Manifest) -> None:
    if manifest.kind != "rows":
        await discard_restoration(run, part)
        raise MaintenanceError(f"{part} is not there: restore the archive of its rows first")
    loaded, leaf = (run.schema.qualified(name) for name in (part.restoration, part.name))
    if await run.connection.scalar(_EXISTS, {"table": leaf}):
        raise MaintenanceError(
            f"a table {part} is there, but detached: run `agentobs maintain --apply`, which "
            "finishes what it began, then restore again"
        )
    await run.connection.commit()
    await declare_foreign_keys(run, part, part.restoration)

    names: list[tuple[str, str]] = []

    async def prepare() -> None:
        # How the server calls the indexes of a table of the month's name, a table of it tells.
        await create_like(run, part, part.name)
        names[:] = await index_names(run, part.name)
        await execute_ddl(run.connection, f"DROP TABLE {leaf}")

    async def work() -> None:
        await take_rows_back(run, part, part.restoration)
        await execute_ddl(run.connection, f"ALTER TABLE {loaded} RENAME TO {quoted(part.name)}")
        await rename_indexes(run, part.name, names)
        await set_foreign_keys_aside(run, part)
        await move_rows(run, part)
        await attach(run, part)
        await note_restored(run, part)

    locks = locks_to_attach(part.table, has_foreign_keys=True)
    await with_locks(run, locks, work, prepare=prepare)


async def _merge(run: Run, part: MonthPartition) -> None:
    """Add the rows that the month lacks; refuse those that it has with another content."""
    loaded, leaf = (run.schema.qualified(name) for name in (part.restoration, part.name))
    async with run.connection.begin():
        columns = ", ".join(await columns_of(run, part.table.name))
        if others := await count_differing(run, part, part.restoration, part.name):
            raise MaintenanceError(
                f"{others:,} rows of the archive are in {part} with another content: nothing was "
                "restored"
            )
        await take_rows_back(run, part, part.restoration)
        merge = statement_with(_MERGE, leaf=leaf, loaded=loaded, columns=columns)
        await run.connection.execute(merge)
        await note_restored(run, part)


async def _give_payload_back(run: Run, part: MonthPartition) -> None:
    """Give rows their payload that have none; what was written since is kept.

    A few rows at a time, so that nobody who changes one waits for long.
    """
    loaded, leaf = (run.schema.qualified(name) for name in (part.restoration, part.name))
    assigned = ", ".join(f"{name} = loaded.{name}" for name in part.table.payload)
    without = " AND ".join(f"rows.{name} IS NULL" for name in part.table.payload)
    give = statement_with(_GIVE, loaded=loaded, leaf=leaf, assigned=assigned, without=without)
    async with run.connection.begin():
        await execute_ddl(run.connection, f"ALTER TABLE {loaded} ADD PRIMARY KEY (id)")
        await note_payload_restored(run, part)
    given = _CHUNK
    while given == _CHUNK:
        async with run.connection.begin():
            given = await run.connection.scalar(give, {"size": _CHUNK}) or 0
