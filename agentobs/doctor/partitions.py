"""Partitions: months ahead, what a broken run has left, CHECKs of months, rows in DEFAULT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.maintenance import Month, Policy
from agentobs.maintenance.catalog import read_strays
from agentobs.maintenance.ddl import literal_of
from agentobs.maintenance.plan import MakeMonth, make_plan
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentobs.doctor.context import Context
    from agentobs.maintenance.catalog import TableState
    from agentobs.maintenance.tables import EventTable, MonthPartition, Schema

MOST_COUNTED = 10_000
"""Of rows in DEFAULT so many are looked at, for there may be years of them."""

_MAINTAIN = "agentobs maintain --apply"
_CHECKS = text(
    """
    SELECT relname, conname, convalidated FROM pg_constraint
    JOIN pg_class ON pg_class.oid = conrelid
    WHERE conrelid = ANY (CAST(:oids AS oid[])) AND contype = 'c'
      AND conname = ANY (CAST(:names AS text[]))
    """
)
# In one statement, with a key for each row and its children together: the link of a child may not
# lead nowhere in between. An instant that no key can hold stays with its row.
_REKEY = """\
WITH rekeyed AS MATERIALIZED (
    SELECT former.id AS former, {function}({instant}) AS id
    FROM ONLY {default} AS former
    WHERE {instant} >= '1970-01-02 00:00:00+00' AND {instant} < '9999-11-30 00:00:00+00'
      AND abs(extract(epoch FROM {instant} - to_timestamp(
          ('x' || lpad(left(replace(former.id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint
          / 1000.0))) > 86400
)
UPDATE {table} AS changed SET {changes}
FROM {touched}
WHERE changed.id = touched.former;"""
_TOUCHED = "rekeyed AS touched"
_TOUCHED_WITH_CHILDREN = """\
(
    SELECT event.id AS former, coalesce(own.id, event.id) AS id,
           coalesce(parent.id, event.parent_event_id) AS parent
    FROM (SELECT former AS id FROM rekeyed
          UNION SELECT child.id FROM {table} AS child JOIN rekeyed ON parent_event_id = former
         ) AS both_kinds
    JOIN {table} AS event USING (id)
    LEFT JOIN rekeyed AS own ON own.former = event.id
    LEFT JOIN rekeyed AS parent ON parent.former = event.parent_event_id
) AS touched"""


async def check_partitions(context: Context) -> list[Finding]:
    """Find months that are not there in time, and what a run that was broken off has left."""
    policy = Policy(ahead=context.thresholds.months_ahead)
    return [
        finding
        for state in await context.partitions()
        for finding in _of_table(context, state, policy)
    ]


def _of_table(context: Context, state: TableState, policy: Policy) -> Iterable[Finding]:
    steps = make_plan([state], policy).steps
    missing = [step.part.month for step in steps if isinstance(step, MakeMonth)]
    if missing:
        yield _missing(state.table, missing, policy)
    for step in steps:
        if not isinstance(step, MakeMonth):
            words = f"a run of maintenance was broken off: it has to {step}"
            yield _partitions(state.table.name, words, _MAINTAIN)
    wanted = set(Month.of(policy.now).and_following(policy.ahead))
    for month in sorted(wanted & set(state.in_the_way)):
        yield _in_the_way(context.schema, state.part(month))


def _missing(table: EventTable, missing: list[Month], policy: Policy) -> Finding:
    words = f"{table.name} has no partition for {', '.join(map(str, missing))}: "
    if Month.of(policy.now) in missing:
        words += "rows of now go to DEFAULT, where no retention reaches them"
    else:
        words += "from then on rows go to DEFAULT. Does maintenance run each day?"
    return _partitions(table.name, words, _MAINTAIN)


def _in_the_way(schema: Schema, part: MonthPartition) -> Finding:
    words = f"a table that is no partition has the name of one that is to be made: {part}"
    table, other = schema.qualified(part.usual_name), quoted(f"{part.usual_name}_set_aside")
    return _partitions(part.usual_name, words, f"ALTER TABLE {table} RENAME TO {other};")


def _partitions(subject: str, words: str, fix: str) -> Finding:
    return Finding(
        check="partitions", severity=Severity.WARNING, subject=subject, words=words, fix=fix
    )


async def check_month_constraints(context: Context) -> list[Finding]:
    """Find months without the CHECK that tells the planner, and who inserts, which they are."""
    months = [state.part(month) for state in await context.partitions() for month in state.months]
    names = [_constraint_of(part)[1] for part in months]
    rows = await context.rows(_CHECKS, oids=context.oids, names=names)
    found = {(row.relname, row.conname): row.convalidated for row in rows}
    return [
        _constraint(context, part, is_valid=is_valid)
        for part in months
        if not (is_valid := found.get(_constraint_of(part)))
    ]


def _constraint_of(part: MonthPartition) -> tuple[str, str]:
    return part.name, f"{part.usual_name}_{part.table.instant}_check"


def _constraint(context: Context, part: MonthPartition, *, is_valid: bool | None) -> Finding:
    partition, name = _constraint_of(part)
    table, instant = context.schema.qualified(partition), part.table.instant
    first, end = map(literal_of, part.instants)
    rule = f"CHECK ({instant} >= {first} AND {instant} < {end})"
    statements = [f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(name)};"]
    if is_valid is None:
        add = f"ALTER TABLE {table} ADD CONSTRAINT {quoted(name)} {rule} NOT VALID;"
        statements.insert(0, add)
    return Finding(
        check="month_constraints",
        severity=Severity.WARNING,
        subject=partition,
        words=f"{partition} {'lacks' if is_valid is None else 'does not vouch for'} {name}: each "
        f"question by {instant} reads it, and it takes rows of other months",
        fix="\n".join(statements),
    )


async def check_default(context: Context) -> list[Finding]:
    """Find rows in DEFAULT: those that maintenance would move, and those that it can't."""
    return [
        finding
        for state in await context.partitions()
        for finding in _of_default(context, await _with_strays(context, state))
    ]


async def _with_strays(context: Context, state: TableState) -> TableState:
    async with context.connection.begin():
        # One more tells that there are more.
        most = MOST_COUNTED + 1
        strays = await read_strays(context.connection, context.schema, state.table, most=most)
    return replace(state, strays=tuple(strays))


def _of_default(context: Context, state: TableState) -> Iterable[Finding]:
    steps = make_plan([state], Policy(ahead=0)).steps
    moved = sum(step.moved for step in steps if isinstance(step, MakeMonth))
    staying = sum(found.rows for found in state.strays) - moved
    if moved:
        severity = Severity.WARNING if moved > context.thresholds.default_rows else Severity.NOTICE
        words = f"{_counted(moved)} rows are in {state.table.default}, which could be in months"
        yield _default(state.table, severity, words, _MAINTAIN)
    if staying:
        words = (
            f"{_counted(staying)} rows stay in {state.table.default}, where no retention reaches "
            "them: their ids are not of their instants. Who writes them should leave the id out; "
            "these get another one, and maintenance moves them. An instant of no month stays"
        )
        yield _default(state.table, Severity.NOTICE, words, _rekey(context, state.table))


def _counted(rows: int) -> str:
    return f"more than {MOST_COUNTED:,}" if rows > MOST_COUNTED else f"{rows:,}"


def _default(table: EventTable, severity: Severity, words: str, fix: str) -> Finding:
    return Finding(check="default", severity=severity, subject=table.default, words=words, fix=fix)


def _rekey(context: Context, table: EventTable) -> str:
    name = context.schema.qualified(table.name)
    touched, changes = _TOUCHED, "id = touched.id"
    if table.has_parents:
        touched = _TOUCHED_WITH_CHILDREN.format(table=name)
        changes += ", parent_event_id = touched.parent"
    return _REKEY.format(
        function=context.schema.qualified("agentobs_uuid7_at"),
        instant=table.instant,
        default=context.schema.qualified(table.default),
        table=name,
        touched=touched,
        changes=changes,
    )
