"""Copy anew what changed since it was copied, by the notes that a trigger makes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from agentobs.migrations.online.rows import write_rows
from agentobs.migrations.online.tables import CHANGES, KEY
from agentobs.migrations.online.transactions import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

# The note of a TRUNCATE.
_EMPTIED = UUID(int=0)
_MOST_AT_ONCE = 5_000
# Notes are taken by their place on disk: who notes meanwhile adds to the end.
_TAKE = text(
    f"""
    DELETE FROM {CHANGES} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {CHANGES} WHERE table_name = :table LIMIT {_MOST_AT_ONCE}))
    RETURNING id
    """  # noqa: S608 (constants)
)
_AMONG = "WHERE o.id = ANY (:changed)"


def catch_up(connection: Connection, table: EventTable) -> int:
    """Work off notes in one transaction of its own; return how many rows they named."""
    with snapshot(connection):
        return apply_changes(connection, table)


def apply_changes(connection: Connection, table: EventTable) -> int:
    """Work off notes in the open transaction, which must read one snapshot, or hold the locks."""
    changed = set(connection.scalars(_TAKE, {"table": table.name}))
    if _EMPTIED in changed:
        # What came after it is noted, too.
        connection.exec_driver_sql(f"TRUNCATE {table.beside}, {table.original_ids}")
    if changed:
        _copy_anew(connection, table, sorted(changed))
    return len(changed)


def _copy_anew(connection: Connection, table: EventTable, changed: Sequence[UUID]) -> None:
    gone = _take_away(connection, table, changed)
    write_rows(connection, table, _AMONG, {"changed": list(changed)})
    if table.has_parents and gone:
        _follow_parents(connection, table, gone)


def _take_away(
    connection: Connection, table: EventTable, changed: Sequence[UUID]
) -> dict[UUID, UUID]:
    """Delete the copies of those rows; return the keys that they had, by their former ids."""
    former = connection.execute(
        text(
            f"DELETE FROM {table.original_ids} WHERE original_id = ANY (:changed) "  # noqa: S608
            "RETURNING original_id, id"
        ),
        {"changed": list(changed)},
    )
    keys: dict[UUID, UUID] = {row[0]: row[1] for row in former}
    had = {original: keys.get(original, original) for original in changed}
    deleted = set(
        connection.scalars(
            text(f"DELETE FROM {table.beside} WHERE id = ANY (:keys) RETURNING id"),  # noqa: S608
            {"keys": list(had.values())},
        )
    )
    return {original: key for original, key in had.items() if key in deleted}


def _follow_parents(connection: Connection, table: EventTable, had: dict[UUID, UUID]) -> None:
    """Link the children of rows whose instant, and so whose key, changed."""
    connection.execute(
        text(
            f"""
            UPDATE {table.beside} SET parent_event_id = moved.new
            FROM (
                SELECT had.key, {KEY}(o.id, o.{table.instant}) AS new
                FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS uuid[])) AS had (id, key)
                JOIN {table.name} o ON o.id = had.id
            ) AS moved
            WHERE parent_event_id = moved.key AND moved.new <> moved.key
            """  # noqa: S608 (names of ours)
        ),
        {"ids": list(had), "keys": list(had.values())},
    )
