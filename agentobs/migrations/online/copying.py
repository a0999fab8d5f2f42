"""Copy a table in batches, each of which is committed with the place where the next one begins."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.migrations.online.rows import noted, write_rows
from agentobs.migrations.online.tables import STATE
from agentobs.migrations.online.transactions import snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

logger = logging.getLogger("agentobs.migrations")

BATCH = 10_000
_SECONDS_BETWEEN_WORDS = 5.0
_PLACE = text(
    f"SELECT last_instant, last_id, copied, total FROM {STATE} WHERE table_name = :table"  # noqa: S608
)
_ADVANCE = text(
    f"""
    UPDATE {STATE} SET last_instant = :instant, last_id = :id, copied = copied + :rows
    WHERE table_name = :table
    """  # noqa: S608 (a constant name)
)
_FINISH = text(f"UPDATE {STATE} SET phase = 'copied' WHERE table_name = :table")  # noqa: S608


def copy_rows(connection: Connection, table: EventTable) -> None:
    """Copy what is not copied yet, in the order of instants, so that neighbours stay neighbours.

    What is written meanwhile is noted, and copied once more when the notes are worked off.
    """
    said = time.monotonic()
    while (rows := _copy_batch(connection, table)) > 0:
        if time.monotonic() - said > _SECONDS_BETWEEN_WORDS:
            _say(connection, table)
            said = time.monotonic()
        if rows < BATCH:
            break
    with connection.begin():
        connection.execute(_FINISH, {"table": table.name})


def _copy_batch(connection: Connection, table: EventTable) -> int:
    """Copy the next rows, and note the place, in one transaction; return how many they were."""
    with snapshot(connection):
        instant, id_, _, _ = connection.execute(_PLACE, {"table": table.name}).one()
        values = {} if id_ is None else {"instant": instant, "id": id_}
        which = _next_rows(table, is_first=id_ is None)
        last = _last_of(connection, table, which, values)
        if last is None:
            return 0
        rows, instant, id_ = last
        write_rows(connection, table, which, values)
        place = {"table": table.name, "instant": instant, "id": id_, "rows": rows}
        connection.execute(_ADVANCE, place)
        return int(rows)


def _next_rows(table: EventTable, *, is_first: bool) -> str:
    """Choose the rows behind the place, but those of which there is a note.

    Their turn comes when the notes are worked off; and one that was copied already, and was moved
    ahead of the copy since, would be there twice.
    """
    place = f"(o.{table.instant}, o.id) > (CAST(CAST(:instant AS text) AS timestamptz), :id)"
    conditions = [f"NOT EXISTS ({noted(table, 'o.id')})", *([] if is_first else [place])]
    return f"WHERE {' AND '.join(conditions)} ORDER BY o.{table.instant}, o.id LIMIT {BATCH}"


def _last_of(
    connection: Connection, table: EventTable, which: str, values: Mapping[str, Any]
) -> tuple[int, str, UUID] | None:
    """Return how many rows the batch has, and the place of its last one."""
    row = connection.execute(
        text(
            f"""
            SELECT row_number() OVER (ORDER BY {table.instant}, id), {table.instant}::text, id
            FROM (SELECT o.{table.instant}, o.id FROM {table.name} o {which}) AS batch
            ORDER BY 1 DESC LIMIT 1
            """  # noqa: S608 (names of ours)
        ),
        values,
    ).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def _say(connection: Connection, table: EventTable) -> None:
    _, _, copied, total = connection.execute(_PLACE, {"table": table.name}).one()
    connection.rollback()
    logger.info("%s: %s rows of about %s are copied", table.name, f"{copied:,}", f"{total:,}")
