"""The examination: every check in its turn, none of which breaks another one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from agentobs.doctor.activity import check_locks, check_transactions
from agentobs.doctor.addresses import check_addresses, check_pooler
from agentobs.doctor.bloat import check_bloat, check_dead_rows
from agentobs.doctor.connection import open_connection
from agentobs.doctor.context import Context, read_context
from agentobs.doctor.failures import failed
from agentobs.doctor.findings import Diagnosis, Finding, Severity
from agentobs.doctor.indexes import check_invalid_indexes, check_unused_indexes
from agentobs.doctor.parameters import check_parameters
from agentobs.doctor.partitions import check_default, check_month_constraints, check_partitions
from agentobs.doctor.retention import check_retention
from agentobs.doctor.rollups import check_rollups
from agentobs.doctor.schema import check_drift, check_revision, lacks_tables
from agentobs.doctor.server import check_clock, check_version, unreachable
from agentobs.doctor.thresholds import DEFAULT_THRESHOLDS
from agentobs.errors import AgentobsError, ConnectionFailedError, DatabaseError
from agentobs.sessions.address import migration_address
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from agentobs.doctor.findings import Server
    from agentobs.doctor.thresholds import Thresholds
    from agentobs.settings import DatabaseSettings


@dataclass(frozen=True)
class _Check:
    """A check, and what is said where it finds nothing; some look at the tables of head."""

    name: str
    fine: str
    find: Callable[[Context], Awaitable[list[Finding]]]
    needs_tables: bool = False


_CHECKS = (
    _Check("version", "the server is of a version that is supported", check_version),
    _Check("addresses", "every address that is set leads to the same database", check_addresses),
    _Check("pooler", "no transaction pooler is where none should be", check_pooler),
    _Check("clock", "the server's clock is that of this machine", check_clock),
    _Check("parameters", "the server's parameters suit", check_parameters),
    _Check("revision", "the database is at the revision of this package", check_revision),
    _Check("drift", "the tables are as the revisions make them", check_drift, needs_tables=True),
    _Check("invalid_indexes", "every index is valid", check_invalid_indexes),
    _Check("partitions", "months are there ahead of time", check_partitions, needs_tables=True),
    _Check(
        "month_constraints",
        "every month has its CHECK",
        check_month_constraints,
        needs_tables=True,
    ),
    _Check("default", "no row is in DEFAULT", check_default, needs_tables=True),
    _Check("retention", "no month is there for too long", check_retention, needs_tables=True),
    _Check("rollups", "every hour that has closed is folded", check_rollups, needs_tables=True),
    _Check("transactions", "no transaction is open for long", check_transactions),
    _Check("locks", "nobody keeps others from our tables", check_locks),
    _Check("dead_rows", "vacuum keeps up", check_dead_rows),
    _Check("bloat", "tables take the room that they need, by an estimate", check_bloat),
    _Check("unused_indexes", "every index of some size is used", check_unused_indexes),
)


async def diagnose(
    settings: DatabaseSettings | None = None, *, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> Diagnosis:
    """Look at the database for what is wrong, and how to mend it; change nothing.

    It looks through the address of migrations, with the rights of its role. A server that can't be
    reached is a finding. Raises ConfigurationError where no address is set, or a wrong one.
    """
    settings = settings or read_settings()
    began = time.perf_counter()
    findings: list[Finding] = []
    server = await _examine(settings, thresholds, findings)
    findings.sort(key=lambda finding: finding.severity.rank, reverse=True)
    return Diagnosis(server=server, findings=tuple(findings), seconds=time.perf_counter() - began)


async def _examine(
    settings: DatabaseSettings, thresholds: Thresholds, findings: list[Finding]
) -> Server | None:
    address, server = migration_address(settings), None
    try:
        async with open_connection(address, settings, thresholds.check_timeout) as connection:
            context = await read_context(connection, address, settings, thresholds)
            server = context.server
            await _check_all(context, findings)
            findings.insert(0, _fine("reachable", f"{address.place} answers"))
    except DatabaseError as error:
        # What was found before the connection was lost is still true.
        findings.append(unreachable(error, address, Severity.CRITICAL))
    return server


async def _check_all(context: Context, findings: list[Finding]) -> None:
    has_tables = not lacks_tables(context)
    for check in _CHECKS:
        if check.needs_tables and not has_tables:
            continue
        found = await _check(context, check)
        findings.extend(found)
        # The catalog of another version is not the one that is asked for.
        if check.find is check_version and found[0].severity is Severity.CRITICAL:
            return
    if not has_tables:
        findings.append(_left_out(check.name for check in _CHECKS if check.needs_tables))


async def _check(context: Context, check: _Check) -> list[Finding]:
    try:
        return await check.find(context) or [_fine(check.name, check.fine)]
    except ConnectionFailedError:
        raise
    except (AgentobsError, SQLAlchemyError) as error:
        return [failed(context, check.name, error)]


def _fine(check: str, words: str) -> Finding:
    return Finding(check=check, severity=Severity.OK, words=words)


def _left_out(checks: Iterable[str]) -> Finding:
    return Finding(
        check="revision",
        severity=Severity.NOTICE,
        words=f"not looked at until the database is at head: {', '.join(checks)}",
    )
