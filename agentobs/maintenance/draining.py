"""Move a month's rows out of DEFAULT, into the table that is about to become its partition.

Most of them are copied before a lock is taken; what was copied is noted by the version of each row,
so that under the lock only those are copied anew that somebody changed meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MaintenanceError
from agentobs.maintenance.columns import columns_of, count_differing
from agentobs.maintenance.ddl import execute_ddl
from agentobs.maintenance.statements import statement_with

if TYPE_CHECKING:
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

_CHUNK = 5_000

# A row's version is its place and who wrote it; another one has another place, or another writer.
# It is dropped by the transaction that makes it. No temporary table, for the owner of a schema may
# lack the right to any; and not logged, for nothing of it is ever to be recovered.
_NOTE_VERSIONS = """
    CREATE UNLOGGED TABLE {copied} AS
    SELECT row_number() OVER (ORDER BY id) AS number, id, ctid AS place, xmin AS writer
    FROM ONLY {default}
    WHERE id >= '{lower}' AND id < '{upper}' AND {instant} >= '{first}' AND {instant} < '{end}'
"""
_COUNT = "SELECT count(*) FROM {copied}"
_COPY = """
    INSERT INTO {part} ({columns}) OVERRIDING SYSTEM VALUE
    SELECT {qualified} FROM ONLY {default} AS strays
    JOIN {copied} AS copied ON copied.id = strays.id
    WHERE strays.ctid = copied.place AND strays.xmin = copied.writer
      AND copied.number > :done AND copied.number <= :until
"""
_FORGET_CHANGED = """
    DELETE FROM {part} AS rows USING {copied} AS copied
    WHERE rows.id = copied.id AND NOT EXISTS (
        SELECT FROM ONLY {default} AS strays
        WHERE strays.id = copied.id
          AND strays.ctid = copied.place AND strays.xmin = copied.writer)
"""
_COPY_REST = """
    INSERT INTO {part} ({columns}) OVERRIDING SYSTEM VALUE
    SELECT {columns} FROM ONLY {default} AS strays
    WHERE id >= :lower AND id < :upper
      AND NOT EXISTS (SELECT FROM {part} AS rows WHERE rows.id = strays.id)
"""
# Straight from the leaf, where no trigger of the table fires: no row comes or goes.
_DELETE = "DELETE FROM ONLY {default} WHERE id >= :lower AND id < :upper"
_ANY_FOREIGN = """
    SELECT EXISTS (SELECT FROM ONLY {default} WHERE id >= :lower AND id < :upper
                   AND NOT ({instant} >= :first AND {instant} < :end))
"""
# Behind the keys of all months, like those that the partitioning itself set aside.
_SET_ASIDE = """
    WITH noted AS (
        INSERT INTO {original_ids} (id, original_id)
        SELECT CAST(overlay(replace(CAST(gen_random_uuid() AS text), '-', '')
                            PLACING 'ffffffffffff8' FROM 1) AS uuid), id
        FROM ONLY {default}
        WHERE id >= :lower AND id < :upper AND NOT ({instant} >= :first AND {instant} < :end)
        RETURNING id, original_id
    )
    UPDATE ONLY {default} AS strays SET id = noted.id
    FROM noted WHERE strays.id = noted.original_id
"""
_FOLLOW = """
    UPDATE {root} AS children SET parent_event_id = noted.id
    FROM {original_ids} AS noted
    WHERE children.parent_event_id = noted.original_id
      AND noted.original_id >= :lower AND noted.original_id < :upper
"""


async def copy_ahead(run: Run, part: MonthPartition) -> None:
    """Copy the rows before the locks are there, and note which they are, within a transaction."""
    first, end = part.instants
    names, bounds = await _names(run, part), {**part.keys, "first": first, "end": end}
    connection, copied = run.connection, names["copied"]
    for statement in (
        _NOTE_VERSIONS.format(**names, **bounds),
        f"ALTER TABLE {copied} ADD PRIMARY KEY (number), ADD UNIQUE (id)",
        f"ANALYZE {copied}",
    ):
        await execute_ddl(connection, statement)
    count = await connection.scalar(statement_with(_COUNT, copied=copied)) or 0
    for done in range(0, count, _CHUNK):
        until = min(done + _CHUNK, count)
        await connection.execute(statement_with(_COPY, **names), {"done": done, "until": until})
        run.watcher.progressed(until, count)


async def move_rows(run: Run, part: MonthPartition, *, copied: bool = False) -> None:
    """Move the month's rows, under the lock of DEFAULT; `copied` says that most are copied.

    Raises MaintenanceError where a row of the same id and another content is there.
    """
    names = await _names(run, part)
    if copied:
        await run.connection.execute(statement_with(_FORGET_CHANGED, **names))
    else:
        await _refuse_others(run, part)
    for template in (_COPY_REST, _DELETE):
        await run.connection.execute(statement_with(template, **names), part.keys)
    if copied:
        await execute_ddl(run.connection, f"DROP TABLE {names['copied']}")


async def set_foreign_keys_aside(run: Run, part: MonthPartition) -> None:
    """Give rows another id whose own lies in the month by chance, and note what it was."""
    names = await _names(run, part)
    first, end = part.instants
    values = {**part.keys, "first": first, "end": end}
    if not await run.connection.scalar(statement_with(_ANY_FOREIGN, **names), values):
        return
    if part.table.has_parents:
        # Who writes a link to such a row now has committed by then, or finds its new id.
        lock = run.schema.qualified("agentobs_lock_parents")
        await run.connection.execute(statement_with("SELECT {lock}(true)", lock=lock))
    changed = await run.connection.execute(statement_with(_SET_ASIDE, **names), values)
    if changed.rowcount and part.table.has_parents:
        await run.connection.execute(statement_with(_FOLLOW, **names), part.keys)


async def _refuse_others(run: Run, part: MonthPartition) -> None:
    default, table = part.table.default, part.name
    if others := await count_differing(run, part, default, table):
        raise MaintenanceError(
            f"{others:,} rows of {default} are in the archive of {part} with another content: "
            "nothing was restored"
        )


async def _names(run: Run, part: MonthPartition) -> dict[str, str]:
    columns = await columns_of(run, part.table.name)
    return {
        "root": run.schema.qualified(part.table.name),
        "default": run.schema.qualified(part.table.default),
        "part": run.schema.qualified(part.name),
        "copied": run.schema.qualified("agentobs_copied"),
        "original_ids": run.schema.qualified(part.table.original_ids),
        "instant": part.table.instant,
        "columns": ", ".join(columns),
        # A host's column may be called as one of ours.
        "qualified": ", ".join(f"strays.{name}" for name in columns),
    }
