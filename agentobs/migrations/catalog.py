"""What a migration run asks the server's catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

_SIZES = text(
    """
    SELECT c.relname, pg_size_pretty(coalesce(
        (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(c.oid)),
        pg_total_relation_size(c.oid)
    ))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname IN :names AND c.relkind IN ('r', 'p')
    ORDER BY c.relname
    """
).bindparams(bindparam("names", expanding=True))

NEWEST_MADE = text(
    """
    SELECT max(revision) FROM (VALUES
        ('0004', to_regproc(:schema || '.agentobs_uuid7_prefix')::oid),
        ('0005', (SELECT oid FROM pg_class WHERE relkind = 'p'
                  AND oid = to_regclass(:schema || '.agent_transformation_events'))),
        ('0006', to_regclass(:schema || '.idx_agent_definitions_yaml_paths')),
        ('0007', to_regclass(:schema || '.agentobs_changed_rows')),
        ('0008', to_regclass(:schema || '.agentobs_rollup_state'))
    ) AS marks (revision, mark) WHERE mark IS NOT NULL
    """
)
"""Which revision has made what is in a schema, by what it makes and each later one keeps.

Tables that a downgrade may leave, for what is noted in them, tell nothing. None before 0004, whose
tables are those of scripts. The schema is quoted.
"""


class TableSize(NamedTuple):
    """A table and the room that it takes with indexes and partitions, as PostgreSQL words it."""

    table: str
    size: str


def current_schema(connection: Connection) -> str | None:
    """Return the schema in which unqualified tables are made; None where there is none."""
    schema: str | None = connection.scalar(text("SELECT current_schema()"))
    return schema


def schema_exists(connection: Connection, name: str) -> bool:
    """Tell whether the database has a schema of that name."""
    query = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :name)")
    return bool(connection.scalar(query, {"name": name}))


def table_sizes(connection: Connection, names: Iterable[str]) -> list[TableSize]:
    """List those of the named tables that exist in the current schema, by name."""
    rows = connection.execute(_SIZES, {"names": list(names)})
    return [TableSize(*row) for row in rows]


def newest_made(connection: Connection) -> str | None:
    """Return the revision that has made what is in the current schema; None before 0004."""
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    revision: str | None = connection.scalar(NEWEST_MADE, {"schema": schema})
    return revision
