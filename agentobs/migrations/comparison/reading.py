"""Read the catalog of a schema."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import text

from agentobs.migrations.comparison.catalog import (
    Catalog,
    Column,
    Constraint,
    Function,
    Index,
    Table,
    Trigger,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

    _Part = TypeVar("_Part", Column, Constraint, Index, Trigger)

# Partitions are made like their roots, by the server and by maintenance.
_RELATIONS = text(
    """
    SELECT c.relname, c.relkind::text AS kind, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    ORDER BY 1
    """
)
_COLUMNS = text(
    """
    SELECT c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attcollation <> t.typcollation
                   THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
           || CASE WHEN a.attgenerated <> ''
                   THEN format(' GENERATED ALWAYS AS (%s)', pg_get_expr(d.adbin, d.adrelid))
                   WHEN a.attidentity <> '' THEN ' GENERATED AS IDENTITY' ELSE '' END AS type,
           a.attnotnull AS not_null,
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
           col_description(c.oid, a.attnum) AS comment
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v')
    ORDER BY 1, a.attnum
    """
)
# NOT NULL has constraints of its own from PostgreSQL 18 on; it is read with the columns. What
# refers to a partitioned table has one for each partition, too.
_CONSTRAINTS = text(
    """
    SELECT c.relname, k.conname, k.contype::text AS kind, k.convalidated AS is_valid,
           regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') AS definition
    FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT c.relispartition AND k.contype IN ('p', 'u', 'c', 'f', 'x') AND k.conparentid = 0
    ORDER BY 1, 2
    """
)
_INDEXES = text(
    """
    SELECT c.relname, i.relname, substring(pg_get_indexdef(i.oid) FROM ' USING (.*)$') AS using,
           x.indisunique AS is_unique, x.indisvalid AS is_valid,
           obj_description(i.oid, 'pg_class') AS comment
    FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.oid AND conrelid = c.oid)
    ORDER BY 1, 2
    """
)
_TRIGGERS = text(
    """
    SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid, true) AS definition,
           t.tgenabled::text AS enabled
    FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT c.relispartition AND NOT t.tgisinternal
    ORDER BY 1, 2
    """
)
# How a script is indented is not what it does. A host's own functions may be thousands.
_FUNCTIONS = text(
    r"""
    SELECT p.oid::regprocedure::text, pg_get_function_result(p.oid) AS result,
           l.lanname AS language, p.provolatile::text AS volatility,
           trim(regexp_replace(regexp_replace(p.prosrc, here.prefix, '{schema}.', 'g'),
                               '\s+', ' ', 'g')) AS source,
           p.prosecdef AS is_security_definer, coalesce(p.proconfig, '{}') AS settings,
           regexp_replace(pg_get_functiondef(p.oid), here.prefix, '{schema}.', 'g') AS definition
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    -- The schema's name, and not the end of a longer one.
    CROSS JOIN (SELECT '(?<![[:alnum:]_$])' || regexp_replace(
        quote_ident(current_schema()), '([^[:alnum:]_])', '\\\1', 'g') || '\.' AS prefix) AS here
    WHERE p.pronamespace = to_regnamespace(quote_ident(current_schema())) AND p.prokind = 'f'
      AND (starts_with(p.proname, 'agentobs_') OR p.proname = 'update_agent_definitions_timestamp')
    ORDER BY 1
    """
)


def read_catalog(connection: Connection) -> Catalog:
    """Return what the current schema holds, of whomever; the caller ends the transaction.

    The schema must be the first of the search path: names in it are then written without it.
    """
    columns = _by_table(connection, _COLUMNS, Column)
    constraints = _by_table(connection, _CONSTRAINTS, Constraint)
    indexes = _by_table(connection, _INDEXES, Index)
    triggers = _by_table(connection, _TRIGGERS, Trigger)
    tables = {
        name: Table(
            kind=kind,
            comment=comment,
            columns=columns[name],
            constraints=constraints[name],
            indexes=indexes[name],
            triggers=triggers[name],
        )
        for name, kind, comment in connection.execute(_RELATIONS)
    }
    return Catalog(tables=tables, functions=_functions(connection))


def _functions(connection: Connection) -> dict[str, Function]:
    rows = connection.execute(_FUNCTIONS)
    _, *fields = rows.keys()
    return {
        signature: Function.model_validate(dict(zip(fields, facts, strict=True)))
        for signature, *facts in rows
    }


def _by_table(
    connection: Connection, query: TextClause, kind: type[_Part]
) -> defaultdict[str, dict[str, _Part]]:
    """Read parts of tables: the columns behind the two names are the fields of the part."""
    found: defaultdict[str, dict[str, _Part]] = defaultdict(dict)
    rows = connection.execute(query)
    fields = list(rows.keys())[2:]
    for table, name, *facts in rows:
        found[table][name] = kind.model_validate(dict(zip(fields, facts, strict=True)))
    return found
