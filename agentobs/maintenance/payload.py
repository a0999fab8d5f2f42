"""Let the payload of a closed month go: the month is rewritten beside itself, and swapped.

An UPDATE of all rows would leave as many dead ones. Services go on meanwhile: a trigger notes which
rows they change, from before the archive is taken on, and those keep their payload. Killed
anywhere before the swap, a run leaves a trigger and a table that the next one discards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from agentobs.maintenance.archiving import archive_month
from agentobs.maintenance.columns import columns_of
from agentobs.maintenance.ddl import execute_ddl
from agentobs.maintenance.locks import TableLock, with_locks
from agentobs.maintenance.partitions import (
    attach,
    create_like,
    declare_foreign_keys,
    index_names,
    rename_indexes,
)
from agentobs.maintenance.rollups import are_folded_as_is, note_rewritten
from agentobs.maintenance.statements import statement_with
from agentobs.maintenance.states import note_payload_expired
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from agentobs.maintenance.plan import DiscardRewrite, ExpirePayload
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

CAPTURE = "agentobs_capture"
"""The trigger that notes changed rows."""
CHANGED_ROWS = "agentobs_changed_rows"
_COPY = """
    INSERT INTO {beside} ({columns}) OVERRIDING SYSTEM VALUE
    SELECT {values} FROM {leaf}
"""
_COPY_AND_TELL = f"""
    WITH copied AS (
        {_COPY} WHERE id >= :begin AND id < :upper ORDER BY id LIMIT :size
        RETURNING id
    )
    SELECT count(*) OVER (), id FROM copied ORDER BY id DESC LIMIT 1
"""  # noqa: S608 (names are filled in, quoted)
# A list of keys is looked up in the index, however large the month is.
_COPY_ANEW = f"{_COPY} WHERE id = ANY(:changed)"
_FORGET_COPIES = "DELETE FROM {beside} WHERE id = ANY(:changed)"
_FORGET_CHANGES = "DELETE FROM {changed} WHERE table_name = :table RETURNING id"
# The note of a TRUNCATE.
_EMPTIED = UUID(int=0)

_CHUNK = 10_000
# So few rows are copied anew while everybody waits.
_LAST_ROWS = 500
_MOST_ROUNDS = 20


async def expire_payload(run: Run, step: ExpirePayload) -> None:
    """Rewrite a month without its payload; raise MaintenanceBlockedError where locks don't come."""
    await _capture_changes(run, step.part)
    await archive_month(run, step.part, step.archive, payload=step.part.table.payload)
    await _write_beside(run, step)
    await _catch_up(run, step.part)
    await _swap(run, step.part)


async def discard_rewrite(run: Run, step: DiscardRewrite) -> None:
    """Discard what a rewriting that was broken off has left: its table, its trigger, its notes."""
    part = step.part

    async def work() -> None:
        leaf, beside = (run.schema.qualified(name) for name in (part.name, part.rewrite))
        await execute_ddl(run.connection, f"DROP TABLE IF EXISTS {beside}")
        for trigger in (CAPTURE, f"{CAPTURE}_emptied"):
            await execute_ddl(run.connection, f"DROP TRIGGER IF EXISTS {trigger} ON {leaf}")
        await _forget_changes(run, part)

    locks = [TableLock(name, "ACCESS EXCLUSIVE") for name in part.table.references]
    if step.is_attached:
        locks.append(TableLock(part.name, "ACCESS EXCLUSIVE"))
    await with_locks(run, locks, work)


async def _capture_changes(run: Run, part: MonthPartition) -> None:
    """Note rows that change from now on; who changed some before has committed by then."""
    leaf, function = (
        run.schema.qualified(name) for name in (part.name, "agentobs_note_changed_row")
    )

    async def work() -> None:
        await execute_ddl(
            run.connection,
            f"CREATE TRIGGER {CAPTURE} AFTER INSERT OR UPDATE OR DELETE ON {leaf} "
            f"FOR EACH ROW EXECUTE FUNCTION {function}()",
        )
        await execute_ddl(
            run.connection,
            f"CREATE TRIGGER {CAPTURE}_emptied AFTER TRUNCATE ON {leaf} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        )

    await with_locks(run, [TableLock(part.name, "SHARE ROW EXCLUSIVE")], work)


async def _write_beside(run: Run, step: ExpirePayload) -> None:
    part, beside = step.part, run.schema.qualified(step.part.rewrite)
    async with run.connection.begin():
        await create_like(run, part, part.rewrite, model=part.name)
        await _copy_rows(run, step)
    await declare_foreign_keys(run, part, part.rewrite)
    async with run.connection.begin():
        await execute_ddl(run.connection, f"ANALYZE {beside}")


async def _copy_rows(run: Run, step: ExpirePayload) -> None:
    """Copy the month without its payload, piece by piece, so that one sees how it goes on."""
    names = await _names_for_copy(run, step.part, "NULL")
    copied = statement_with(_COPY_AND_TELL, **names)
    begin, done = step.part.keys["lower"], 0
    while True:
        values = {"begin": begin, "upper": step.part.keys["upper"], "size": _CHUNK}
        last = (await run.connection.execute(copied, values)).one_or_none()
        if last is None:
            return
        done, begin = done + last[0], UUID(int=last[1].int + 1)
        run.watcher.progressed(done, max(done, step.rows or 0))


async def _names_for_copy(run: Run, part: MonthPartition, payload: str) -> dict[str, str]:
    """Return the names of a copy of rows, with `payload` in the place of each such column."""
    columns = await columns_of(run, part.table.name)
    going = set(map(quoted, part.table.payload))
    return {
        "beside": run.schema.qualified(part.rewrite),
        "leaf": run.schema.qualified(part.name),
        "columns": ", ".join(columns),
        "values": ", ".join(payload.format(name) if name in going else name for name in columns),
    }


async def _catch_up(run: Run, part: MonthPartition) -> None:
    """Copy what changed meanwhile before the lock is taken, until little is left for then."""
    for _ in range(_MOST_ROUNDS):
        async with run.connection.begin():
            changed = await _copy_changed_rows(run, part)
        if changed <= _LAST_ROWS:
            return


async def _swap(run: Run, part: MonthPartition) -> None:
    """Put the rewritten table in the place of the partition, in one short transaction."""
    root, leaf, beside = (
        run.schema.qualified(name) for name in (part.table.name, part.name, part.rewrite)
    )

    async def work() -> None:
        names = await index_names(run, part.name)
        are_folded = await are_folded_as_is(run, part)
        await _copy_changed_rows(run, part)
        for statement in (
            f"ALTER TABLE {root} DETACH PARTITION {leaf}",
            f"DROP TABLE {leaf}",
            f"ALTER TABLE {beside} RENAME TO {quoted(part.name)}",
        ):
            await execute_ddl(run.connection, statement)
        await attach(run, part)
        await rename_indexes(run, part.name, names)
        if are_folded:
            await note_rewritten(run, part)
        await note_payload_expired(run, part)

    locks = [
        *(TableLock(name, "ACCESS EXCLUSIVE") for name in part.table.references),
        *(
            TableLock(name, "ACCESS EXCLUSIVE")
            for name in (part.table.name, part.table.default, part.name, part.rewrite)
        ),
    ]
    await with_locks(run, locks, work)


async def _copy_changed_rows(run: Run, part: MonthPartition) -> int:
    """Copy anew, payload and all, the rows that changed since the archive was begun; count them.

    Their notes go in the same transaction: what is noted after that is copied the next time.
    """
    changed = await _forget_changes(run, part)
    if _EMPTIED in changed:
        # A TRUNCATE took all rows; those that came after it are noted, too.
        await execute_ddl(run.connection, f"TRUNCATE {run.schema.qualified(part.rewrite)}")
    names = await _names_for_copy(run, part, "{}")
    for template in (_FORGET_COPIES, _COPY_ANEW):
        await run.connection.execute(statement_with(template, **names), {"changed": changed})
    return len(changed)


async def _forget_changes(run: Run, part: MonthPartition) -> list[UUID]:
    """Take the notes of changed rows away, and return the keys that they held."""
    forget = statement_with(_FORGET_CHANGES, changed=run.schema.qualified(CHANGED_ROWS))
    found = await run.connection.scalars(forget, {"table": part.name})
    return list(set(found))
