"""Parameters of the server that should have another value, for what this package does."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs.doctor.context import Context

_CHECK = "parameters"


@dataclass(frozen=True)
class _Rule:
    """A value that a parameter should not have, why, and the one that it should have."""

    parameter: str
    bad: frozenset[str]
    severity: Severity
    words: str
    good: str


@dataclass(frozen=True)
class _Parameter:
    name: str
    value: str
    context: str
    source: str


_OFF = frozenset({"off"})
_RULES = (
    _Rule(
        "fsync",
        _OFF,
        Severity.WARNING,
        "a crash of the machine may destroy the database",
        "on",
    ),
    _Rule(
        "full_page_writes",
        _OFF,
        Severity.WARNING,
        "a crash of the machine may leave pages half written",
        "on",
    ),
    _Rule(
        "synchronous_commit",
        _OFF,
        Severity.NOTICE,
        "what a recorder takes for stored, and removes from its spool, is lost in a crash",
        "on",
    ),
    _Rule(
        "autovacuum",
        _OFF,
        Severity.WARNING,
        "nobody removes dead rows, and statistics age: plans become bad ones",
        "on",
    ),
    _Rule(
        "track_counts",
        _OFF,
        Severity.WARNING,
        "autovacuum does nothing without the counts, and neither do checks of dead rows and "
        "unused indexes",
        "on",
    ),
    _Rule(
        "track_activities",
        _OFF,
        Severity.NOTICE,
        "nobody sees how long transactions are open, and this check does not, either",
        "on",
    ),
    _Rule(
        "enable_partition_pruning",
        _OFF,
        Severity.WARNING,
        "every question reads all months",
        "on",
    ),
    _Rule(
        "constraint_exclusion",
        _OFF,
        Severity.WARNING,
        "a question for a time by started_at or measured_at reads all months",
        "partition",
    ),
    _Rule(
        "default_transaction_isolation",
        frozenset({"repeatable read", "serializable"}),
        Severity.NOTICE,
        "events are deleted in READ COMMITTED only: say so in each such transaction, or make it "
        "the default",
        "read committed",
    ),
    _Rule(
        "idle_in_transaction_session_timeout",
        frozenset({"0"}),
        Severity.NOTICE,
        "one forgotten transaction keeps maintenance, rollups and vacuum waiting for ever",
        "10min",
    ),
)
# What a session of this role gets, whatever this one has set for itself.
_PARAMETERS = text(
    """
    SELECT name, reset_val AS value, context, source FROM pg_settings
    WHERE name = ANY (CAST(:names AS text[]))
    """
)
_LOCKS, _CONNECTIONS = "max_locks_per_transaction", "max_connections"
_PREPARED = "max_prepared_transactions"
_INDEXES = text(
    "SELECT count(*) AS indexes FROM pg_index WHERE indrelid = ANY (CAST(:oids AS oid[]))"
)
# A dump or an upgrade locks everything at once, beside what all others have locked.
_TIMES_AS_MANY = 2
_LOCKS_ROUNDED_TO = 64
# Read where the server starts or by other processes than the role's own.
_OF_THE_SERVER = frozenset({"postmaster", "sighup"})
_COUNTED_BY_ALL = frozenset({"track_counts", "track_activities"})


async def check_parameters(context: Context) -> list[Finding]:
    """Find parameters with a value that this package suffers from."""
    names = [*(rule.parameter for rule in _RULES), _LOCKS, _CONNECTIONS, _PREPARED]
    rows = await context.rows(_PARAMETERS, names=names)
    found = {row.name: _Parameter(row.name, row.value, row.context, row.source) for row in rows}
    return [
        *(
            _finding(context, rule, found[rule.parameter])
            for rule in _RULES
            if _is_bad(rule, found)
        ),
        *await _check_locks(context, found),
    ]


def _is_bad(rule: _Rule, found: Mapping[str, _Parameter]) -> bool:
    return rule.parameter in found and found[rule.parameter].value in rule.bad


def _finding(context: Context, rule: _Rule, parameter: _Parameter) -> Finding:
    return Finding(
        check=_CHECK,
        severity=rule.severity,
        subject=rule.parameter,
        words=f"{rule.parameter} is {parameter.value}: {rule.words}",
        fix=_change(context, parameter, rule.good),
    )


async def _check_locks(context: Context, found: Mapping[str, _Parameter]) -> list[Finding]:
    """Compare the locks that one transaction may need with those that there is room for."""
    indexes = (await context.rows(_INDEXES, oids=context.oids))[0].indexes
    needed = len(context.oids) + indexes
    owners = int(found[_CONNECTIONS].value) + int(found[_PREPARED].value)
    room = int(found[_LOCKS].value) * owners
    if _TIMES_AS_MANY * needed <= room:
        return []
    words = (
        f"{_LOCKS} is {found[_LOCKS].value}, which is room for {room:,} locks in all: an upgrade "
        f"or a dump locks our {needed:,} tables, partitions and indexes at once. It is read when "
        "the server starts"
    )
    fix = _change(context, found[_LOCKS], str(_locks_for(needed, owners)))
    return [Finding(check=_CHECK, severity=Severity.WARNING, subject=_LOCKS, words=words, fix=fix)]


def _locks_for(needed: int, owners: int) -> int:
    """Return how many locks each owner needs, so that there is room for partitions to come."""
    each = 2 * _TIMES_AS_MANY * needed / owners
    return ceil(each / _LOCKS_ROUNDED_TO) * _LOCKS_ROUNDED_TO


def _change(context: Context, parameter: _Parameter, value: str) -> str:
    """Change a parameter where its value comes from; sessions that come later have it."""
    name, role, database = (
        parameter.name,
        *map(quoted, (context.server.role, context.server.database)),
    )
    change = f"SET {name} = '{value}';"
    if parameter.source == "user":
        return f"ALTER ROLE {role} {change}"
    if parameter.source == "database user":
        return f"ALTER ROLE {role} IN DATABASE {database} {change}"
    if parameter.source != "database" and _is_of_the_server(parameter):
        # What is read at the start only is told by the words.
        reload = "" if parameter.context == "postmaster" else "\nSELECT pg_reload_conf();"
        return f"ALTER SYSTEM {change}{reload}"
    return f"ALTER DATABASE {database} {change}"


def _is_of_the_server(parameter: _Parameter) -> bool:
    return parameter.context in _OF_THE_SERVER or parameter.name in _COUNTED_BY_ALL
