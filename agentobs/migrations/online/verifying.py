"""Compare the rows beside with those of the table, in one snapshot, while others write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.errors import MigrationError
from agentobs.migrations.online.rows import columns_of, noted
from agentobs.migrations.online.transactions import snapshot

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable


def verify(connection: Connection, table: EventTable) -> None:
    """Raise MigrationError where number or content differ, ids as they were.

    Rows whose change is noted and not worked off are left out on both sides.
    """
    with snapshot(connection):
        names = columns_of(connection, table)
        before = connection.execute(text(_rows_before(table, names))).one()
        beside = connection.execute(text(_rows_beside(table, names))).one()
    if tuple(before) != tuple(beside):
        raise MigrationError(
            f"the rows beside {table.name} are not what they should be: {before[0]} there, "
            f"{beside[0]} beside. Nothing was swapped: report this, please, and take it back with "
            "`agentobs db upgrade --online --undo`"
        )


def _rows_before(table: EventTable, names: list[str]) -> str:
    return f"""
        SELECT count(*), sum(hashtextextended(ROW({", ".join(names)})::text, 0))
        FROM {table.name} o
        WHERE NOT EXISTS ({noted(table, "o.id")})
    """  # noqa: S608 (names of ours, and of columns as the server quotes them)


def _rows_beside(table: EventTable, names: list[str]) -> str:
    former = {
        "id": "coalesce(own.original_id, n.id)",
        "parent_event_id": "coalesce(parents.original_id, n.parent_event_id)",
    }
    sources = ", ".join(former.get(name, f"n.{name}") for name in names)
    ids = table.original_ids
    parents = f"LEFT JOIN {ids} parents ON parents.id = n.parent_event_id"
    return f"""
        SELECT count(*), sum(hashtextextended(ROW({sources})::text, 0))
        FROM {table.beside} n LEFT JOIN {ids} own ON own.id = n.id
        {parents if table.has_parents else ""}
        WHERE NOT EXISTS ({noted(table, former["id"])})
    """  # noqa: S608 (names of ours, and of columns as the server quotes them)
