"""Let a month go: archived, folded, detached, compared, dropped; each step can be the last.

Killed after the archive: the next run finds it and goes on. Killed after the detaching, which is
noted in the same transaction: the next run finds the table and the note, and drops it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.maintenance.archiving import archive_month
from agentobs.maintenance.ddl import execute_ddl, literal_of
from agentobs.maintenance.locks import Mode, TableLock, with_locks
from agentobs.maintenance.rollups import bring_up_to_date, keep_rollups, require_kept
from agentobs.maintenance.statements import statement_with
from agentobs.maintenance.states import note_expired
from agentobs.maintenance.tables import DETACHED
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from agentobs.maintenance.plan import DropExpired, ExpireMonth
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

_FORMER_IDS = text(
    """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = CAST(:table AS regclass)
      AND pg_get_expr(relpartbound, inhrelid)
          = format('FOR VALUES FROM (%L) TO (%L)', CAST(:lower AS uuid), CAST(:upper AS uuid))
    """
)
_FORGET_LATE = "DELETE FROM {late} WHERE id >= :lower AND id < :upper"


async def expire_month(run: Run, step: ExpireMonth) -> None:
    """Archive, detach and drop a month; raise MaintenanceBlockedError where locks don't come."""
    part = await _with_usual_name(run, step.part)
    await archive_month(run, part, step.archive)
    await bring_up_to_date(run, part.table)
    await _detach(run, part, step.archive)
    await _archive_and_drop(run, part, step.archive)


async def drop_expired(run: Run, step: DropExpired) -> None:
    """Finish an expiry that ended after the detaching."""
    await _archive_and_drop(run, step.part, step.archive)


async def _archive_and_drop(run: Run, part: MonthPartition, archive: str | None) -> None:
    # Nobody writes to it any more: what came while the archive was taken is archived now.
    await archive_month(run, part, archive)
    await _forget_former_ids(run, part)
    await _drop(run, part)


async def _with_usual_name(run: Run, part: MonthPartition) -> MonthPartition:
    """Give a month that somebody made the name by which a later run finds it once detached."""
    if part.name == part.usual_name:
        return part
    named = run.schema.qualified(part.name)

    async def work() -> None:
        await execute_ddl(
            run.connection, f"ALTER TABLE {named} RENAME TO {quoted(part.usual_name)}"
        )

    await with_locks(run, [TableLock(part.name, "ACCESS EXCLUSIVE")], work)
    return replace(part, made_as=None)


async def _detach(run: Run, part: MonthPartition, archive: str | None) -> None:
    root, leaf = run.schema.qualified(part.table.name), run.schema.qualified(part.name)

    async def prepare() -> None:
        await keep_rollups(run, part)

    async def work() -> None:
        await require_kept(run, part)
        await execute_ddl(run.connection, f"ALTER TABLE {root} DETACH PARTITION {leaf}")
        comment = f"COMMENT ON TABLE {leaf} IS {literal_of(DETACHED)}"
        await execute_ddl(run.connection, comment)
        await note_expired(run, part, archive)

    locks = (
        *_referenced(part, "SHARE ROW EXCLUSIVE"),
        TableLock(part.table.name, "ACCESS EXCLUSIVE"),
        TableLock(part.table.default, "ACCESS EXCLUSIVE"),
        TableLock(part.name, "ACCESS EXCLUSIVE"),
    )
    await with_locks(run, locks, work, prepare=prepare)


async def _forget_former_ids(run: Run, part: MonthPartition) -> None:
    """Forget the few former ids that came after the months of the others were made."""
    late = run.schema.qualified(part.table.original_ids_default)
    async with run.connection.begin():
        await run.connection.execute(statement_with(_FORGET_LATE, late=late), part.keys)


async def _drop(run: Run, part: MonthPartition) -> None:
    """Drop a detached month, and with it the former ids of its rows."""
    former = await _former_ids(run, part)
    gone = [part.name, *former]

    async def work() -> None:
        for name in gone:
            await execute_ddl(run.connection, f"DROP TABLE {run.schema.qualified(name)}")

    # The foreign key goes with the table, and its triggers are on the referenced one, too.
    whole = [part.table.original_ids, part.table.original_ids_default] if former else []
    locks = [TableLock(name, "ACCESS EXCLUSIVE") for name in (*whole, *gone)]
    await with_locks(run, [*_referenced(part, "ACCESS EXCLUSIVE"), *locks], work)


async def _former_ids(run: Run, part: MonthPartition) -> list[str]:
    """Return the partition of former ids that is of the month, by its bounds."""
    found = await run.connection.scalars(
        _FORMER_IDS, {"table": run.schema.qualified(part.table.original_ids)} | part.keys
    )
    names = list(found)
    await run.connection.commit()
    return names


def _referenced(part: MonthPartition, mode: Mode) -> tuple[TableLock, ...]:
    return tuple(TableLock(table, mode) for table in part.table.references)
