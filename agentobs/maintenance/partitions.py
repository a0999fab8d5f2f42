"""Make the partition of a month, and move the rows into it that DEFAULT took in its absence.

All of it is one transaction. A CHECK that keeps the month's rows out of DEFAULT from an earlier
transaction on would let the server attach without a look at DEFAULT, but it would also refuse the
rows that arrive meanwhile: here the look is taken under the lock, and no row is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.maintenance.ddl import execute_ddl, literal_of
from agentobs.maintenance.draining import copy_ahead, move_rows, set_foreign_keys_aside
from agentobs.maintenance.locks import Mode, TableLock, with_locks
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentobs.maintenance.plan import MakeMonth
    from agentobs.maintenance.tables import EventTable, MonthPartition
    from agentobs.maintenance.workplace import Run

_FOREIGN_KEYS = text(
    """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = CAST(:table AS regclass) AND contype = 'f'
    ORDER BY conname
    """
)
_INDEXES = text(
    r"""
    SELECT regexp_replace(pg_get_indexdef(indexrelid), ' INDEX .* ON .* USING ', ' INDEX USING '),
           relname
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = CAST(:table AS regclass)
    ORDER BY relname
    """
)
_OWNER = text(
    """
    SELECT quote_ident(rolname) FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
    WHERE pg_class.oid = CAST(:table AS regclass) AND rolname <> current_user
    """
)
# What a month has of its own that LIKE does not copy: how it is vacuumed, and its TOAST table.
_SETTINGS = text(
    """
    SELECT string_agg(format('%s%I = %L', prefix, split_part(option, '=', 1),
                             substr(option, strpos(option, '=') + 1)), ', ')
    FROM pg_class AS model
    LEFT JOIN pg_class AS toast ON toast.oid = model.reltoastrelid
    CROSS JOIN LATERAL (
        SELECT '', unnest(model.reloptions) UNION ALL SELECT 'toast.', unnest(toast.reloptions)
    ) AS settings (prefix, option)
    WHERE model.oid = CAST(:model AS regclass)
    """
)
# What the host grants on new tables by default would be a way around the triggers of the root.
_GRANTEES = text(
    """
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                    ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM pg_class, aclexplode(relacl)
    WHERE pg_class.oid = CAST(:table AS regclass) AND grantee <> relowner
    """
)

_NOT_OF_A_LEAF = "EXCLUDING COMMENTS EXCLUDING IDENTITY"
_WITHIN_MONTH = quoted("agentobs_within_month")


async def make_month(run: Run, step: MakeMonth) -> None:
    """Make the partition of `step`; raise MaintenanceBlockedError where locks don't come."""
    part, copied = step.part, step.moved > 0

    async def set_aside() -> None:
        await set_foreign_keys_aside(run, part)

    async def prepare() -> None:
        await create_like(run, part, part.name)
        if copied:
            await copy_ahead(run, part)

    async def work() -> None:
        # More rows may have come since the plan was made.
        await set_aside()
        await move_rows(run, part, copied=copied)
        await attach(run, part)

    if step.rekeyed:
        # Their children may be many: no lock of a table is held while these follow.
        await with_locks(run, [], set_aside)
    locks = locks_to_attach(part.table, has_foreign_keys=False)
    await with_locks(run, locks, work, prepare=prepare)


def locks_to_attach(table: EventTable, *, has_foreign_keys: bool) -> list[TableLock]:
    """Return the locks of attaching: what foreign keys name, the table, DEFAULT.

    A foreign key that the new partition `has_foreign_keys` of its own becomes one with the
    table's, for which its triggers on the other table are dropped. One that attaching makes has
    none; but its rows are looked at under the locks.
    """
    referenced: Mode = "ACCESS EXCLUSIVE" if has_foreign_keys else "SHARE ROW EXCLUSIVE"
    return [
        *(TableLock(name, referenced) for name in table.references),
        TableLock(table.name, "SHARE UPDATE EXCLUSIVE"),
        TableLock(table.default, "ACCESS EXCLUSIVE"),
    ]


async def create_like(
    run: Run, part: MonthPartition, name: str, *, model: str | None = None
) -> None:
    """Create a table that can become the month's partition: columns, key, CHECKs, indexes, owner.

    Its settings are those of `model`, or of DEFAULT. Its foreign keys are another matter, for they
    lock the tables that they name.
    """
    root, leaf = run.schema.qualified(part.table.name), run.schema.qualified(name)
    instant, (first, end) = part.table.instant, map(literal_of, part.instants)
    lower, upper = (literal_of(str(key)) for key in part.keys.values())
    check = quoted(f"{part.usual_name}_{instant}_check")
    of_instants = f"CHECK ({instant} >= {first} AND {instant} < {end})"
    # For the time until it is attached, which then need not look at the rows.
    of_keys = f"CHECK (id >= {lower} AND id < {upper})"
    comment = literal_of(f"The rows of {part.table.name} of {part.month}")
    for statement in (
        # As with CREATE TABLE … PARTITION OF: comments stand at the root, numbers come from it.
        f"CREATE TABLE {leaf} (LIKE {root} INCLUDING ALL {_NOT_OF_A_LEAF})",
        f"ALTER TABLE {leaf} ADD CONSTRAINT {check} {of_instants}",
        f"ALTER TABLE {leaf} ADD CONSTRAINT {_WITHIN_MONTH} {of_keys}",
        f"COMMENT ON TABLE {leaf} IS {comment}",
    ):
        await execute_ddl(run.connection, statement)
    await _set_up(run, leaf, model=run.schema.qualified(model or part.table.default))
    owner = await run.connection.scalar(_OWNER, {"table": root})
    await execute_ddl(run.connection, f"ALTER TABLE {leaf} OWNER TO {owner or 'CURRENT_USER'}")


async def _set_up(run: Run, leaf: str, *, model: str) -> None:
    if settings := await run.connection.scalar(_SETTINGS, {"model": model}):
        await execute_ddl(run.connection, f"ALTER TABLE {leaf} SET ({settings})")
    await revoke_default_grants(run, leaf)


async def revoke_default_grants(run: Run, leaf: str) -> None:
    """Take back what the host grants on every new table: rights are those of the whole table."""
    for grantee in (await run.connection.scalars(_GRANTEES, {"table": leaf})).all():
        await execute_ddl(run.connection, f"REVOKE ALL ON {leaf} FROM {grantee}")


async def declare_foreign_keys(run: Run, part: MonthPartition, name: str) -> None:
    """Give a table that has rows the foreign keys of the partitioned one.

    They are declared under a short lock, and checked under one that stops nobody.
    """
    leaf = run.schema.qualified(name)

    async def work() -> None:
        for key, definition in await foreign_keys_of(run, part.table):
            await execute_ddl(
                run.connection,
                f"ALTER TABLE {leaf} ADD CONSTRAINT {quoted(key)} {definition} NOT VALID",
            )

    locks = [TableLock(table, "SHARE ROW EXCLUSIVE") for table in part.table.references]
    await with_locks(run, locks, work)
    async with run.connection.begin():
        for key, _ in await foreign_keys_of(run, part.table):
            await execute_ddl(
                run.connection, f"ALTER TABLE {leaf} VALIDATE CONSTRAINT {quoted(key)}"
            )


async def index_names(run: Run, name: str) -> list[tuple[str, str]]:
    """Return a table's indexes: what they are (the rest of their definitions), and their names."""
    found = await run.connection.execute(_INDEXES, {"table": run.schema.qualified(name)})
    return [(definition, index) for definition, index in found]


async def rename_indexes(run: Run, name: str, names: Sequence[tuple[str, str]]) -> None:
    """Give each index of a table the name that `names` has for it."""
    left = list(names)
    for definition, index in await index_names(run, name):
        # A host may have two that are the same.
        new = next((wanted for wanted in left if wanted[0] == definition), (definition, index))
        if new in left:
            left.remove(new)
        if new[1] != index:
            await execute_ddl(
                run.connection,
                f"ALTER INDEX {run.schema.qualified(index)} RENAME TO {quoted(new[1])}",
            )


async def foreign_keys_of(run: Run, table: EventTable) -> list[tuple[str, str]]:
    """Return the names and definitions of a table's foreign keys."""
    root = run.schema.qualified(table.name)
    found = await run.connection.execute(_FOREIGN_KEYS, {"table": root})
    return [(name, definition) for name, definition in found.all()]


async def attach(run: Run, part: MonthPartition) -> None:
    """Attach the table of the month's name as its partition."""
    root, leaf = run.schema.qualified(part.table.name), run.schema.qualified(part.name)
    lower, upper = (literal_of(str(key)) for key in part.keys.values())
    await execute_ddl(
        run.connection,
        f"ALTER TABLE {root} ATTACH PARTITION {leaf} FOR VALUES FROM ({lower}) TO ({upper})",
    )
    await execute_ddl(run.connection, f"ALTER TABLE {leaf} DROP CONSTRAINT {_WITHIN_MONTH}")
