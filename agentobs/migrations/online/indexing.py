"""Index the partitions one by one, so that to index the whole table finds all of it done."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.migrations.comparison import expected_catalog
from agentobs.migrations.connection import quoted
from agentobs.migrations.online.locks import patiently
from agentobs.migrations.online.tables import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from agentobs.migrations.comparison import Catalog
    from agentobs.migrations.online.tables import EventTable

logger = logging.getLogger("agentobs.migrations")

_PARENT_KEY = f"{EVENTS}_parent_event_id_fkey"
_LEAVES = text(
    """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = to_regclass(:table) ORDER BY relname
    """
)
_INDEXES = text(
    """
    SELECT relname, indisunique, substring(pg_get_indexdef(indexrelid) FROM ' USING (.*)$')
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass(:table) AND NOT indisprimary ORDER BY indexrelid
    """
)
_CONSTRAINTS = text(
    """
    SELECT conname, contype::text, convalidated FROM pg_constraint
    WHERE conrelid = to_regclass(:table) AND contype IN ('p', 'f')
    """
)


def index_partitions(connection: Connection, table: EventTable, found: Catalog) -> None:
    """Give each partition what the table will have at head; what one has already is left out."""
    indexes, keys = _indexes_of(connection, table), _foreign_keys_of(table, found)
    for leaf in connection.scalars(_LEAVES, {"table": table.beside}).all():
        connection.rollback()
        made = _make_indexes(connection, leaf, indexes)
        _make_foreign_keys(connection, leaf, keys)
        if made:
            logger.info("%s is indexed", leaf)
    with connection.begin():
        connection.exec_driver_sql(f"ANALYZE {table.beside}, {table.original_ids}")


def _indexes_of(connection: Connection, table: EventTable) -> list[tuple[bool, str]]:
    """List the indexes that are carried over, and behind them those that later revisions add.

    In the order in which the revision makes them: of two on the same columns, the first one's
    partitions have the shorter name.
    """
    dropped = expected_catalog("0003").tables[table.name].indexes
    at_head = expected_catalog("head").tables[table.name].indexes
    own = connection.execute(_INDEXES, {"table": table.name}).all()
    connection.rollback()
    kept = [row for row in own if row[0] not in dropped or row[0] in at_head]
    names = {row[0] for row in kept}
    later = [(each.is_unique, each.using) for name, each in at_head.items() if name not in names]
    return [*((row[1], row[2]) for row in kept), *later]


def _foreign_keys_of(table: EventTable, found: Catalog) -> Mapping[str, str]:
    constraints = found.tables[table.name].constraints
    return {
        name: each.definition
        for name, each in constraints.items()
        # Triggers take the place of the link to a parent.
        if each.kind == "f" and name != _PARENT_KEY
    }


def _make_indexes(connection: Connection, leaf: str, indexes: Iterable[tuple[bool, str]]) -> bool:
    constraints = {row[1] for row in connection.execute(_CONSTRAINTS, {"table": leaf})}
    there = {(row[1], row[2]) for row in connection.execute(_INDEXES, {"table": leaf})}
    connection.rollback()
    missing = [each for each in indexes if each not in there]
    # Each gets the name that the server gives to an index of a partition.
    statements = [f"ALTER TABLE {quoted(leaf)} ADD PRIMARY KEY (id)"] * ("p" not in constraints)
    statements += [
        f"CREATE {'UNIQUE ' if is_unique else ''}INDEX ON {quoted(leaf)} USING {using}"
        for is_unique, using in missing
    ]
    for statement in statements:
        with connection.begin():
            connection.exec_driver_sql(statement)
    return bool(statements)


def _make_foreign_keys(connection: Connection, leaf: str, keys: Mapping[str, str]) -> None:
    """Declare them under a lock of a moment, and look at the rows under one that stops nobody."""
    there = {row[0]: row[2] for row in connection.execute(_CONSTRAINTS, {"table": leaf})}
    connection.rollback()
    alter = f"ALTER TABLE {quoted(leaf)}"
    for name, definition in keys.items():
        if name not in there:
            add = f"{alter} ADD CONSTRAINT {quoted(name)} {definition} NOT VALID"
            patiently(connection, partial(_run, add))
        if not there.get(name, False):
            with connection.begin():
                connection.exec_driver_sql(f"{alter} VALIDATE CONSTRAINT {quoted(name)}")


def _run(statement: str, connection: Connection) -> None:
    connection.exec_driver_sql(statement)
