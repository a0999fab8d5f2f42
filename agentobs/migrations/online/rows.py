"""How rows of a table are written beside it: new keys, links by new keys, former ids noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.migrations.online.months import create_months
from agentobs.migrations.online.tables import CHANGES, KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

_COLUMNS = text(
    """
    SELECT quote_ident(attname) FROM pg_attribute
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum
    """
)


def columns_of(connection: Connection, table: EventTable) -> list[str]:
    """List the columns that rows are written with, quoted; the host's are among them.

    They are for `text()`, which takes a name behind a colon for a parameter.
    """
    names = connection.scalars(_COLUMNS, {"table": table.beside})
    return [name.replace(":", r"\:") for name in names]


def noted(table: EventTable, key: str) -> str:
    """Write the query that finds a note of the row whose id is the expression `key`."""
    return f"SELECT FROM {CHANGES} c WHERE c.table_name = '{table.name}' AND c.id = {key}"


def write_rows(
    connection: Connection, table: EventTable, which: str, values: Mapping[str, Any]
) -> None:
    """Write those rows of the table beside it that the rest of a query, `which`, chooses.

    The transaction must read one snapshot: the months are made before the rows are written.
    """
    _make_months(connection, table, which, values)
    names = columns_of(connection, table)
    sources = [_SOURCES.get(name, "o.{}").format(name) for name in names]
    parents = f"LEFT JOIN {table.name} p ON p.id = o.parent_event_id" if table.has_parents else ""
    # A batch is looked up by keys, whatever the planner thinks of the sizes.
    connection.exec_driver_sql("SET LOCAL enable_hashjoin = off")
    connection.exec_driver_sql("SET LOCAL enable_mergejoin = off")
    connection.execute(
        text(
            f"""
            WITH o AS MATERIALIZED (
                SELECT o.*, {KEY}(o.id, o.{table.instant}) AS agentobs_key
                FROM {table.name} o {which}
            ), noted AS (
                INSERT INTO {table.original_ids} (id, original_id)
                SELECT agentobs_key, id FROM o WHERE agentobs_key <> id
            )
            INSERT INTO {table.beside} ({", ".join(names)}) OVERRIDING SYSTEM VALUE
            SELECT {", ".join(sources)} FROM o {parents} ORDER BY o.agentobs_key
            """  # noqa: S608 (names of ours, and of columns as the server quotes them)
        ),
        values,
    )


_SOURCES = {
    "id": "o.agentobs_key",
    # A link to nothing, which a foreign key that is not valid allows, stays what it is.
    "parent_event_id": (
        f"CASE WHEN p.id IS NULL THEN o.parent_event_id ELSE {KEY}(p.id, p.started_at) END"
    ),
}


def _make_months(
    connection: Connection, table: EventTable, which: str, values: Mapping[str, Any]
) -> None:
    """Make the months of the rows: a kept key may be of another one than its row's instant."""
    found = connection.scalars(
        text(
            f"""
            SELECT DISTINCT date_trunc('month', CASE WHEN key = id THEN to_timestamp(
                ('x0000' || translate(left(id::text, 13), '-', ''))::bit(64)::bigint / 1000.0)
                ELSE instant END, 'UTC')::text
            FROM (
                SELECT o.id, o.{table.instant} AS instant, {KEY}(o.id, o.{table.instant}) AS key
                FROM {table.name} o {which}
            ) AS keyed
            WHERE instant >= '1970-01-01 00:00:00+00' AND instant < '9999-12-01 00:00:00+00'
            """  # noqa: S608 (names of ours)
        ),
        values,
    )
    create_months(connection, table, list(found))
