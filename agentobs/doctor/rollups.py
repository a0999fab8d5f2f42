"""Rollups: hours that are not folded, hours that changed since, partitions that nobody watches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.rollups import FAMILIES, Store, backlog_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentobs.doctor.context import Context
    from agentobs.rollups import Backlog, Family

_CHECK = "rollups"
_MAINTAIN = "agentobs maintain --apply"
# For rows that come, change and go.
_OF_A_TABLE = 3
# Enabled at the root, they are so at each partition. One that is missing is drift.
_TRIGGERS = text(
    """
    SELECT format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I;', nspname, relname, tgname)
    FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE tgrelid = to_regclass(:table) AND starts_with(tgname, :prefix)
    ORDER BY tgname
    """
)


async def check_rollups(context: Context) -> list[Finding]:
    """Find what maintenance has to fold, and what it can't know that it has to."""
    found = [await _of_family(context, family) for family in FAMILIES]
    return [finding for findings in found for finding in findings]


async def _of_family(context: Context, family: Family) -> list[Finding]:
    store = Store(context.connection, context.schema.name)
    backlog = await backlog_of(store, family, datetime.now(UTC))
    findings = list(_of_backlog(context, family, backlog))
    if backlog.unwatched:
        findings.append(await _unwatched(context, family, backlog.unwatched))
    return findings


def _lag(context: Context, family: Family, first: datetime, closed_to: datetime) -> Finding:
    is_long = closed_to - first > context.thresholds.rollup_lag
    words = (
        f"hours of {family.name} are not folded from {first:%Y-%m-%d %H:%M} to "
        f"{closed_to:%Y-%m-%d %H:%M} UTC: charts read them row by row. Does maintenance run?"
    )
    severity = Severity.WARNING if is_long else Severity.NOTICE
    return _finding(severity, family.name, words, _MAINTAIN)


def _of_backlog(context: Context, family: Family, backlog: Backlog) -> Iterable[Finding]:
    if backlog.closed_from and backlog.closed_to:
        yield _lag(context, family, backlog.closed_from, backlog.closed_to)
    if backlog.marked:
        is_many = backlog.marked > context.thresholds.dirty_hours
        words = (
            f"{backlog.marked:,} hours of {family.name} changed since they were folded: charts "
            "read them row by row"
        )
        severity = Severity.WARNING if is_many else Severity.NOTICE
        yield _finding(severity, family.name, words, _MAINTAIN)
    if backlog.has_changed_partitions:
        words = (
            f"partitions of {family.name} came, went or were rewritten since their hours were "
            "folded: charts read these row by row"
        )
        yield _finding(Severity.NOTICE, family.name, words, _MAINTAIN)


async def _unwatched(context: Context, family: Family, count: int) -> Finding:
    rows = await context.rows(
        _TRIGGERS,
        table=context.schema.qualified(family.name),
        prefix=f"trigger_{family.name}_rollups_",
    )
    words = (
        f"{count} partitions of {family.name} lack a trigger of the rollups, or it is off: what "
        "changes in them marks no hour, so they are read row by row, and don't expire"
    )
    if len(rows) < _OF_A_TABLE:
        # That is drift, and has its own finding.
        words = f"{words}. The table itself lacks one: mend that, and ask again"
        return _finding(Severity.WARNING, family.name, words, "agentobs doctor")
    fix = "\n".join(statement for (statement,) in rows)
    return _finding(Severity.WARNING, family.name, words, fix)


def _finding(severity: Severity, subject: str, words: str, fix: str) -> Finding:
    return Finding(check=_CHECK, severity=severity, subject=subject, words=words, fix=fix)
