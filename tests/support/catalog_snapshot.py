"""Read a schema's catalog as plain data, in PostgreSQL's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_TABLES = """
    SELECT c.relname, obj_description(c.oid, 'pg_class')
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'p')
    ORDER BY 1
"""
_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY 1, a.attnum
"""
# NOT NULL has constraints of its own from PostgreSQL 18 on; it is read with the columns.
_CONSTRAINTS = """
    SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = to_regnamespace(:schema) AND k.contype <> 'n'
    ORDER BY 1, 2
"""
_INDEXES = """
    SELECT t.relname, i.relname, pg_get_indexdef(x.indexrelid)
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_class t ON t.oid = x.indrelid
    WHERE t.relnamespace = to_regnamespace(:schema) AND x.indisvalid
    ORDER BY 1, 2
"""
_TRIGGERS = """
    SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid)
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = to_regnamespace(:schema) AND NOT t.tgisinternal
    ORDER BY 1, 2
"""
_FUNCTIONS = """
    SELECT p.proname, pg_get_function_result(p.oid), l.lanname, p.prosrc
    FROM pg_proc p
    JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = to_regnamespace(:schema)
    ORDER BY 1
"""
_OTHER_OBJECTS = """
    SELECT relkind::text, relname FROM pg_class
    WHERE relnamespace = to_regnamespace(:schema) AND relkind NOT IN ('r', 'p', 'i', 'I')
    UNION ALL
    SELECT 'type', typname FROM pg_type
    WHERE typnamespace = to_regnamespace(:schema) AND typtype IN ('e', 'd')
    ORDER BY 1, 2
"""

_QUERIES = {
    "tables": _TABLES,
    "columns": _COLUMNS,
    "constraints": _CONSTRAINTS,
    "indexes": _INDEXES,
    "triggers": _TRIGGERS,
    "functions": _FUNCTIONS,
    "other objects": _OTHER_OBJECTS,
}

Catalog = dict[str, list[tuple[Any, ...]]]


async def read_catalog(connection: AsyncConnection, schema: str = "public") -> Catalog:
    return {
        kind: [tuple(row) for row in await connection.execute(text(query), {"schema": schema})]
        for kind, query in _QUERIES.items()
    }
