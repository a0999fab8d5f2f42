"""Copy anew what changed since it was copied, by the notes that a trigger makes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from agentobs.errors import MigrationError
from agentobs.migrations.online.rows import write_rows
from agentobs.migrations.online.tables import CHANGES, KEY
from agentobs.migrations.online.transactions import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

# The note of a TRUNCATE.
_EMPTIED = UUID(int=0)
MOST_AT_ONCE = 5_000
# So few are worked off while everybody waits for the swap.
_FEW = 200
_MOST_ROUNDS = 1_000
# Notes are taken by their place on disk: who notes meanwhile adds to the end.
_TAKE = text(
    f"""
    DELETE FROM {CHANGES} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {CHANGES} WHERE table_name = :table LIMIT :most))
    RETURNING id
    """  # noqa: S608 (a constant name)
)
_AMONG = "WHERE o.id = ANY (:changed)"


def catch_up(connection: Connection, table: EventTable) -> None:
    """Work off notes until few are left, those of the writers that go on.

    All that the last transaction saw are worked off then: no row was copied with what it saw of
    another one whose own note waits. Raises MigrationError where it never gets there.
    """
    for _ in range(_MOST_ROUNDS):
        with snapshot(connection):
            notes = apply_changes(connection, table)
        if notes <= _FEW and notes < MOST_AT_ONCE:
            return
    raise MigrationError(
        f"rows of {table.name} change faster than they are copied: run it again when less is "
        "written, it goes on from where it is"
    )


def apply_changes(connection: Connection, table: EventTable) -> int:
    """Work off some notes in the open transaction, and return how many.

    The transaction must read one snapshot, or hold the locks of the tables.
    """
    taken = connection.scalars(_TAKE, {"table": table.name, "most": MOST_AT_ONCE}).all()
    changed = set(taken)
    if _EMPTIED in changed:
        # What came after it is noted, too.
        connection.exec_driver_sql(f"TRUNCATE {table.beside}, {table.original_ids}")
    if changed:
        _copy_anew(connection, table, sorted(changed))
    return len(taken)


def _copy_anew(connection: Connection, table: EventTable, changed: Sequence[UUID]) -> None:
    _take_away(connection, table, changed)
    write_rows(connection, table, _AMONG, {"changed": list(changed)})
    if table.has_parents:
        _follow_parents(connection, table, changed)


def _take_away(connection: Connection, table: EventTable, changed: Sequence[UUID]) -> None:
    """Delete the copies of those rows, by the keys that they had."""
    former = connection.execute(
        text(
            f"DELETE FROM {table.original_ids} WHERE original_id = ANY (:changed) "  # noqa: S608
            "RETURNING original_id, id"
        ),
        {"changed": list(changed)},
    )
    keys: dict[UUID, UUID] = {row[0]: row[1] for row in former}
    connection.execute(
        text(f"DELETE FROM {table.beside} WHERE id = ANY (:keys)"),  # noqa: S608
        {"keys": [keys.get(original, original) for original in changed]},
    )


def _follow_parents(connection: Connection, table: EventTable, changed: Sequence[UUID]) -> None:
    """Link the children of rows whose instant, and so whose key, changed.

    They are found by the table's own links: a child may have been copied before its parent was.
    """
    connection.execute(
        text(
            f"""
            UPDATE {table.beside} AS child SET parent_event_id = moved.parent
            FROM (
                SELECT {KEY}(c.id, c.{table.instant}) AS key,
                       {KEY}(p.id, p.{table.instant}) AS parent
                FROM {table.name} c JOIN {table.name} p ON p.id = c.parent_event_id
                WHERE c.parent_event_id = ANY (:changed)
            ) AS moved
            WHERE child.id = moved.key AND child.parent_event_id <> moved.parent
            """  # noqa: S608 (names of ours)
        ),
        {"changed": list(changed)},
    )
