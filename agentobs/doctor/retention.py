"""Retention: months that should be gone, those that were brought back, and what keeps them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.maintenance import Policy
from agentobs.maintenance.catalog import read_month_states
from agentobs.maintenance.months import SLACK
from agentobs.maintenance.plan import ExpireMonth, ExpirePayload, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentobs.doctor.context import Context
    from agentobs.maintenance import Month
    from agentobs.maintenance.catalog import TableState

_DAY = timedelta(days=1)
# The server looks for rows of others before it lets a month go.
_REFERENCES = text(
    """
    SELECT referred.relname AS table_name, conname AS name,
           format('%I.%I', nspname, own.relname) AS host,
           format('ALTER TABLE %I.%I DROP CONSTRAINT %I;', nspname, own.relname, conname) AS drop
    FROM pg_constraint
    JOIN pg_class AS referred ON referred.oid = confrelid
    JOIN pg_class AS own ON own.oid = conrelid
    JOIN pg_namespace ON pg_namespace.oid = own.relnamespace
    WHERE confrelid = ANY (CAST(:oids AS oid[])) AND referred.relkind = 'p' AND contype = 'f'
      AND conparentid = 0
    ORDER BY 1, 2
    """
)


async def check_retention(context: Context) -> list[Finding]:
    """Find months that are older than what is kept, and those that were brought back."""
    found = await context.partitions()
    async with context.connection.begin():
        noted = await read_month_states(context.connection, context.schema)
    states = [replace(each, states=tuple(noted[each.table.name])) for each in found]
    return [
        *(finding for state in states for finding in _of_table(context, state)),
        *await _references(context, states),
    ]


def _of_table(context: Context, state: TableState) -> Iterable[Finding]:
    limits = context.thresholds
    if limits.keep or limits.keep_payload:
        yield from _lag(state, _policy(limits.keep, limits.keep_payload))
    elif (implied := _implied_by_what_expired(state)) is not None:
        yield from _lag(state, _policy(implied, None))
    for noted in state.states:
        if noted.is_restored:
            part = state.part(noted.month)
            words = f"{part} was brought back, and stays whatever its age"
            yield _finding(Severity.NOTICE, part.name, words, f"agentobs archive release {part}")


def _policy(keep: timedelta | None, keep_payload: timedelta | None) -> Policy:
    return Policy(ahead=0, keep=keep, keep_payload=keep_payload)


def _implied_by_what_expired(state: TableState) -> timedelta | None:
    """Return the greatest age by which the youngest month that has expired would have.

    No policy is stored: but whatever it is, months before one that has expired are too old.
    """
    expired = [noted.month for noted in state.states if noted.is_expired]
    if not expired:
        return None
    age = datetime.now(UTC) - (max(expired).end + SLACK)
    return max(age // _DAY, 1) * _DAY


def _lag(state: TableState, policy: Policy) -> Iterable[Finding]:
    # That others refer to the table is told on its own.
    steps = make_plan([replace(state, references=())], policy).steps
    rows = [step.part.month for step in steps if isinstance(step, ExpireMonth)]
    if rows:
        age = policy.keep or timedelta(0)
        words = f"{_months(rows)} of {state.table.name} should be gone: {_over(rows, age)}"
        yield _overdue(state, words, policy)
    payload = [step.part.month for step in steps if isinstance(step, ExpirePayload)]
    if payload:
        age = policy.keep_payload or timedelta(0)
        columns = " and ".join(state.table.payload)
        words = (
            f"{_months(payload)} of {state.table.name} should have lost {columns}: "
            f"{_over(payload, age)}"
        )
        yield _overdue(state, words, policy)


def _months(months: Sequence[Month]) -> str:
    if len(months) == 1:
        return f"month {months[0]}"
    return f"{len(months)} months ({months[0]} to {months[-1]})"


def _over(months: Sequence[Month], age: timedelta) -> str:
    late = datetime.now(UTC) - (months[0].end + SLACK) - age
    return f"{age.days} days are kept, and the oldest is {late.days} days beyond"


def _overdue(state: TableState, words: str, policy: Policy) -> Finding:
    ages = (("--keep", policy.keep), ("--keep-payload", policy.keep_payload))
    # Rounded up, for what goes does not come back.
    options = [f"{name} {-(-age // _DAY)}d" for name, age in ages if age]
    if archive := _last_archive(state):
        options.append(f"--archive {shlex.quote(archive)}")
    else:
        words += ". What goes is lost without --archive"
    fix = f"agentobs maintain {' '.join(options)} --apply"
    return _finding(Severity.WARNING, state.table.name, words, fix)


def _last_archive(state: TableState) -> str | None:
    """Return where the youngest month was archived that was: what follows it belongs there."""
    return next((noted.archive for noted in reversed(state.states) if noted.archive), None)


async def _references(context: Context, states: Sequence[TableState]) -> list[Finding]:
    limits = context.thresholds
    expires = bool(limits.keep or limits.keep_payload)
    expires = expires or any(noted.is_expired for state in states for noted in state.states)
    return [
        _finding(
            Severity.WARNING if expires else Severity.NOTICE,
            row.table_name,
            f"no month of {row.table_name} can go while constraint {row.name} of {row.host} "
            "refers to it",
            row.drop,
        )
        for row in await context.rows(_REFERENCES, oids=context.oids)
    ]


def _finding(severity: Severity, subject: str, words: str, fix: str) -> Finding:
    return Finding(check="retention", severity=severity, subject=subject, words=words, fix=fix)
