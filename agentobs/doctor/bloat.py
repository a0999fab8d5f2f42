"""Dead rows and room that is lost, as far as statistics tell: what is said here is estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from sqlalchemy import Row

    from agentobs.doctor.context import Context

_MIB = 2**20
_MOST_TOLD = 20
_DEAD = text(
    """
    SELECT format('%I.%I', nspname, relname) AS name, relname, dead, dead + live AS rows,
           to_char(vacuumed_at, 'YYYY-MM-DD HH24:MI') AS vacuumed_at
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_stat_get_dead_tuples(pg_class.oid) AS dead,
               pg_stat_get_live_tuples(pg_class.oid) AS live,
               greatest(pg_stat_get_last_vacuum_time(pg_class.oid),
                        pg_stat_get_last_autovacuum_time(pg_class.oid)) AS vacuumed_at
    ) AS statistics
    WHERE pg_class.oid = ANY (CAST(:oids AS oid[])) AND relkind = 'r'
      AND dead > :rows AND dead > CAST(:share AS float) * (dead + live)
    ORDER BY dead DESC, 1
    """
)
_NEVER_VACUUMED = text(
    """
    SELECT format('%I.%I', nspname, relname) AS name, relname
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = ANY (CAST(:oids AS oid[])) AND relkind = 'r'
      AND EXISTS (SELECT FROM pg_options_to_table(reloptions)
                  WHERE option_name = 'autovacuum_enabled' AND NOT option_value::boolean)
    ORDER BY 1
    """
)
# What the rows need, by their number and widths, is compared with the pages that are there: both of
# the last ANALYZE, where little has changed since. A row has a header of 23 bytes with a bit for
# each column, and a pointer of 4, and ends at a multiple of 8; a page has a header of 24; the room
# that a table asks to be left free is not lost. Of a table that the role may not read the widths
# are not shown.
_ROOM = text(
    """
    WITH widths AS (
        SELECT tablename, sum((1 - null_frac) * avg_width) AS width, count(*) AS columns
        FROM pg_stats
        WHERE schemaname = :schema AND tablename = ANY (CAST(:names AS text[])) AND NOT inherited
        GROUP BY 1
    )
    SELECT format('%I.%I', nspname, relname) AS name, relname, is_readable,
           size::bigint, (size - needed)::bigint AS lost
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    LEFT JOIN widths ON tablename = relname
    CROSS JOIN LATERAL (
        SELECT CAST(current_setting('block_size') AS bigint) AS block,
               coalesce((SELECT option_value FROM pg_options_to_table(reloptions)
                         WHERE option_name = 'fillfactor')::integer, 100) / 100.0 AS used,
               8 * ceil((23 + ceil(columns / 8.0)) / 8) + 8 * ceil(width / 8) + 4 AS row_size,
               has_table_privilege(pg_class.oid, 'SELECT') AS is_readable
    ) AS facts
    CROSS JOIN LATERAL (
        SELECT relpages * block AS size,
               ceil(reltuples * row_size / ((block - 24) * used)) * block AS needed
    ) AS room
    WHERE pg_class.oid = ANY (CAST(:oids AS oid[])) AND relkind = 'r' AND reltuples >= 0
      AND size > :bytes
      AND pg_stat_get_mod_since_analyze(pg_class.oid) <= 0.1 * reltuples
    ORDER BY lost DESC NULLS LAST, 1
    """
)


async def check_dead_rows(context: Context) -> list[Finding]:
    """Find tables whose dead rows vacuum does not keep up with, or is told to leave alone."""
    limits = context.thresholds
    dead = await context.rows(
        _DEAD, oids=context.oids, rows=limits.dead_rows, share=limits.dead_share
    )
    left = await context.rows(_NEVER_VACUUMED, oids=context.oids)
    return [*map(_dead, dead[:_MOST_TOLD]), *map(_left_alone, left[:_MOST_TOLD])]


def _dead(row: Row[Any]) -> Finding:
    words = (
        f"about {row.dead:,} of {row.rows:,} rows of {row.relname} are dead; it was last vacuumed "
        f"{f'at {row.vacuumed_at} UTC' if row.vacuumed_at else 'never'}. A transaction that is "
        "open for long keeps them"
    )
    return _finding("dead_rows", Severity.WARNING, row.name, words, f"VACUUM (ANALYZE) {row.name};")


def _left_alone(row: Row[Any]) -> Finding:
    words = f"autovacuum is off for {row.relname}: its dead rows stay, and its statistics age"
    fix = f"ALTER TABLE {row.name} RESET (autovacuum_enabled);"
    return _finding("dead_rows", Severity.WARNING, row.name, words, fix)


async def check_bloat(context: Context) -> list[Finding]:
    """Find tables that take much more room than their rows need, by an estimate."""
    limits = context.thresholds
    rows = await context.rows(
        _ROOM,
        oids=context.oids,
        schema=context.schema.name,
        names=[each.name for each in context.relations],
        bytes=limits.bloat_bytes,
    )
    bloated = [
        row
        for row in rows
        if row.lost is not None
        and row.lost > max(limits.bloat_bytes, limits.bloat_share * row.size)
    ]
    unseen = [row for row in rows if not row.is_readable]
    return [*map(_bloat, bloated[:_MOST_TOLD]), *([_unseen(context, unseen)] if unseen else [])]


def _bloat(row: Row[Any]) -> Finding:
    words = (
        f"about {row.lost / _MIB:,.0f} of {row.size / _MIB:,.0f} MiB of {row.relname} are lost (an "
        "estimate, without indexes and TOAST). To get them back, nobody may use the table "
        "meanwhile, and its hours have to be folded anew"
    )
    fix = f"VACUUM (FULL, ANALYZE) {row.name};"
    return _finding("bloat", Severity.NOTICE, row.name, words, fix)


def _unseen(context: Context, rows: list[Row[Any]]) -> Finding:
    words = f"{len(rows)} tables are not looked at, for the role may not read them"
    tables = ", ".join(row.name for row in rows)
    fix = f"GRANT SELECT ON {tables} TO {quoted(context.server.role)};"
    return _finding("bloat", Severity.NOTICE, context.server.role, words, fix)


def _finding(check: str, severity: Severity, subject: str, words: str, fix: str) -> Finding:
    return Finding(check=check, severity=severity, subject=subject, words=words, fix=fix)
