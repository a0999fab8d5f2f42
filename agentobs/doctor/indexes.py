"""Indexes that serve nobody: those that are not valid, and those that nobody asked for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.migrations.comparison import expected_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from agentobs.doctor.context import Context

_MIB = 2**20
# The leaves come first, for a root is valid when all of them are. Who makes an index, and whoever
# vacuums, has that lock on its table.
_INVALID = text(
    """
    SELECT format('%I.%I', indexes.nspname, index.relname) AS name, index.relname,
           index.relkind = 'I' AS is_root, inhparent IS NOT NULL AS is_attached,
           tables.relname AS table_name,
           EXISTS (SELECT FROM pg_constraint WHERE conindid = index.oid) AS is_constraint,
           EXISTS (SELECT FROM pg_locks
                   WHERE locktype = 'relation' AND relation = indrelid AND granted
                     AND mode = 'ShareUpdateExclusiveLock'
                     AND database = (SELECT oid FROM pg_database
                                     WHERE datname = current_database())) AS is_at_work
    FROM pg_index
    JOIN pg_class AS index ON index.oid = indexrelid
    JOIN pg_namespace AS indexes ON indexes.oid = index.relnamespace
    JOIN pg_class AS tables ON tables.oid = indrelid
    LEFT JOIN pg_inherits ON inhrelid = indexrelid
    WHERE indrelid = ANY (CAST(:oids AS oid[])) AND NOT (indisvalid AND indisready)
    ORDER BY is_root, 1
    """
)
# What each partition has for a root's index: one that is attached, else one that could be, else the
# SQL that makes one, of the server's own words for the root's.
_LEAVES_OF_ROOT = text(
    """
    WITH root AS (
        SELECT indexrelid AS oid, indrelid, indisunique,
               substring(pg_get_indexdef(indexrelid) FROM ' USING (.*)$') AS how
        FROM pg_index WHERE indexrelid = to_regclass(:root)
    ),
    leaf AS (
        SELECT part.oid, nspname, part.relname,
               left(part.relname, 40) || '_' || to_hex(root.oid::bigint) || '_idx' AS new_name
        FROM root JOIN pg_inherits ON inhparent = indrelid
        JOIN pg_class AS part ON part.oid = inhrelid
        JOIN pg_namespace ON pg_namespace.oid = part.relnamespace
    ),
    own AS (
        SELECT indrelid, format('%I.%I', nspname, relname) AS name, inhparent AS parent,
               indisunique, indisvalid,
               substring(pg_get_indexdef(indexrelid) FROM ' USING (.*)$') AS how
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        LEFT JOIN pg_inherits ON inhrelid = indexrelid
    )
    SELECT attached.name AS attached, fitting.name AS fitting,
           format('%I.%I', nspname, new_name) AS made,
           format('CREATE %sINDEX CONCURRENTLY %I ON %I.%I USING %s',
                  CASE WHEN root.indisunique THEN 'UNIQUE ' END, new_name, nspname, relname,
                  root.how) AS make
    FROM root CROSS JOIN leaf
    LEFT JOIN own AS attached ON attached.indrelid = leaf.oid AND attached.parent = root.oid
    LEFT JOIN LATERAL (
        SELECT name FROM own
        WHERE own.indrelid = leaf.oid AND parent IS NULL AND indisvalid
          AND (own.how, own.indisunique) = (root.how, root.indisunique)
        ORDER BY name LIMIT 1
    ) AS fitting ON true
    ORDER BY leaf.relname
    """
)
# What a unique index or a replica's identity does, no scan counts. Statistics are as old as the
# last reset, or at least as the server's start. Sizes are those of the last vacuum.
_UNUSED = text(
    """
    SELECT format('%I.%I', nspname, relname) AS name, relname, size, known_for
    FROM (
        SELECT coalesce(inhparent, indexrelid) AS root,
               sum(relpages::bigint * current_setting('block_size')::integer)::bigint AS size
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        LEFT JOIN pg_inherits ON inhrelid = indexrelid
        WHERE indrelid = ANY (CAST(:oids AS oid[])) AND indisvalid
          AND NOT (indisunique OR indisexclusion OR indisreplident)
        GROUP BY 1
        HAVING sum(pg_stat_get_numscans(indexrelid)) = 0
    ) AS sums
    JOIN pg_class ON pg_class.oid = root
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN (
        SELECT clock_timestamp() - coalesce(stats_reset, pg_postmaster_start_time()) AS known_for
        FROM pg_stat_database WHERE datname = current_database()
    ) AS statistics
    WHERE size >= :bytes AND known_for >= :age
    ORDER BY size DESC, 1
    """
)


async def check_invalid_indexes(context: Context) -> list[Finding]:
    """Find indexes that cost each write and answer nothing, for their making was broken off."""
    return [
        await _invalid(context, index) for index in await context.rows(_INVALID, oids=context.oids)
    ]


async def _invalid(context: Context, index: Row[Any]) -> Finding:
    words = f"index {index.relname} of {index.table_name} is not valid: it answers no question"
    severity, fix = Severity.WARNING, await _mend(context, index)
    if index.is_at_work:
        words += ". Somebody vacuums its table, or makes it just now: look again when that is done"
        severity, fix = Severity.NOTICE, "agentobs doctor"
    return Finding(
        check="invalid_indexes", severity=severity, subject=index.name, words=words, fix=fix
    )


async def _mend(context: Context, index: Row[Any]) -> str:
    if index.is_root:
        leaves = await context.rows(_LEAVES_OF_ROOT, root=index.name)
        return "\n".join(_attach_all(index.name, leaves))
    if index.is_attached or index.is_constraint or index.relname in _package_indexes():
        return f"REINDEX INDEX CONCURRENTLY {index.name};"
    return f"DROP INDEX CONCURRENTLY {index.name};"


def _attach_all(root: str, leaves: Sequence[Row[Any]]) -> list[str]:
    """Make and attach what is missing; with the last one the server looks whether all are there."""
    statements = []
    for leaf in leaves:
        if leaf.attached is None and leaf.fitting is None:
            statements.append(f"{leaf.make};")
        if leaf.attached is None:
            statements.append(f"ALTER INDEX {root} ATTACH PARTITION {leaf.fitting or leaf.made};")
    if not statements and leaves:
        # Attached again, it makes the server look again.
        statements = [f"ALTER INDEX {root} ATTACH PARTITION {leaves[0].attached};"]
    return statements


def _package_indexes() -> set[str]:
    tables = expected_catalog("head").tables.values()
    return {name for table in tables for name in table.indexes}


async def check_unused_indexes(context: Context) -> list[Finding]:
    """Find indexes that no question has used for long, the host's own included."""
    limits, own = context.thresholds, _package_indexes()
    found = await context.rows(
        _UNUSED, oids=context.oids, bytes=limits.unused_bytes, age=limits.unused_for
    )
    return [_unused(index, is_own=index.relname in own) for index in found]


def _unused(index: Row[Any], *, is_own: bool) -> Finding:
    words = (
        f"index {index.relname} ({index.size / _MIB:,.0f} MiB) has answered no question on this "
        f"server for {index.known_for.days} days, and each row that is written pays for it"
    )
    if is_own:
        words += ". It is one of the package's: without it drift names it, with the SQL to make it"
    return Finding(
        check="unused_indexes",
        severity=Severity.NOTICE,
        subject=index.name,
        words=words,
        fix=f"DROP INDEX {index.name};",
    )
