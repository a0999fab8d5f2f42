"""Copy anew what changed since it was copied, by the notes that a trigger makes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from agentobs.errors import MigrationError
from agentobs.migrations.connection import autocommit
from agentobs.migrations.online.rows import write_rows
from agentobs.migrations.online.tables import CHANGES, KEY
from agentobs.migrations.online.transactions import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

logger = logging.getLogger("agentobs.migrations")

# The note of a TRUNCATE, which is the first of all in the order of keys, too.
_EMPTIED = UUID(int=0)
MOST_AT_ONCE = 5_000
# So few are worked off while everybody waits for the swap.
_FEW = 200
# How often there may be no fewer notes than before until writers are held to be faster.
_MOST_IN_VAIN = 100
# In the order of the index, each going on where the last one ended: those that were deleted stand
# in the heap and in the index until they are vacuumed, and are not met again.
_TAKE = text(
    f"""
    DELETE FROM {CHANGES} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {CHANGES} WHERE table_name = :table AND id >= :after
        ORDER BY id LIMIT :most))
    RETURNING id
    """  # noqa: S608 (a constant name)
)
_TAKE_EMPTIED = text(
    f"DELETE FROM {CHANGES} WHERE table_name = :table AND id = :emptied RETURNING id"  # noqa: S608
)
# The end is not cut off, for writers would wait; and where autovacuum is at it, that will do.
_VACUUM = f"VACUUM (TRUNCATE false, SKIP_LOCKED) {CHANGES}"
_AMONG = "WHERE o.id = ANY (:changed)"


def catch_up(connection: Connection, table: EventTable) -> None:
    """Work off notes until few are left, those of the writers that go on.

    All that the last transaction saw are worked off then: no row was copied with what it saw of
    another one whose own note waits. Raises MigrationError where it never gets there.
    """
    fewest: int | None = None
    in_vain = 0
    while in_vain < _MOST_IN_VAIN:
        notes, at_once = _work_off(connection, table)
        if at_once and notes <= _FEW:
            return
        if not at_once:
            _clear_away(connection, table, notes)
        in_vain = 0 if fewest is None or notes < fewest else in_vain + 1
        fewest = notes if fewest is None else min(notes, fewest)
    raise MigrationError(
        f"rows of {table.name} change faster than they are copied: run it again when less is "
        "written, it goes on from where it is"
    )


def _work_off(connection: Connection, table: EventTable) -> tuple[int, bool]:
    """Work off all notes; return how many, and whether one transaction saw and took them all."""
    after, notes = _EMPTIED, 0
    while True:
        with snapshot(connection):
            taken = apply_changes(connection, table, after=after)
        notes += len(taken)
        if len(taken) < MOST_AT_ONCE:
            return notes, after == _EMPTIED
        # A row may have more notes than were taken.
        after = taken[-1]


def _clear_away(connection: Connection, table: EventTable, notes: int) -> None:
    """Let the next ones, and those that the swap takes while all wait, be found at once."""
    logger.info("%s: %s changes are copied", table.name, f"{notes:,}")
    with autocommit(connection):
        connection.exec_driver_sql(_VACUUM)


def apply_changes(
    connection: Connection, table: EventTable, *, after: UUID = _EMPTIED
) -> Sequence[UUID]:
    """Work off some notes in the open transaction, and return the ids that they named, in order.

    They are those behind `after`. The transaction must read one snapshot, or hold the locks of the
    tables.
    """
    # First of all: what came after it is noted, too, and some of that may be taken here.
    emptied = _take_emptied(connection, table)
    values = {"table": table.name, "after": after, "most": MOST_AT_ONCE}
    taken = sorted(connection.scalars(_TAKE, values))
    if taken:
        _copy_anew(connection, table, sorted(set(taken)))
    return [*emptied, *taken]


def _take_emptied(connection: Connection, table: EventTable) -> Sequence[UUID]:
    values = {"table": table.name, "emptied": _EMPTIED}
    emptied = connection.scalars(_TAKE_EMPTIED, values).all()
    if emptied:
        connection.exec_driver_sql(f"TRUNCATE {table.beside}, {table.original_ids}")
    return emptied


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
