"""The addresses of services, migrations and readers: whether all lead to where they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from agentobs.doctor.connection import is_pooled, open_connection
from agentobs.doctor.findings import Finding, Severity
from agentobs.doctor.server import another_address, unreachable
from agentobs.errors import ConnectionFailedError
from agentobs.sessions.address import database_address, migration_address, reading_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.doctor.context import Context
    from agentobs.sessions.address import Address
    from agentobs.settings import DatabaseSettings

_MIGRATIONS, _READERS = "AGENTOBS_MIGRATION_URL", "AGENTOBS_READ_URL"
# Behind a pooler, too, it is the server that answers. What is reached by a socket has no address.
_IDENTITY = text(
    """
    SELECT pg_postmaster_start_time(), pg_is_in_recovery(),
           (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
_OWN_ADDRESS = text(
    """
    SELECT CASE family(inet_server_addr()) WHEN 6 THEN '[' || host(inet_server_addr()) || ']'
           ELSE coalesce(host(inet_server_addr()), 'SERVER') END AS host,
           current_setting('port') AS port
    """
)


class _Other(NamedTuple):
    """An address beside the one that is looked at, and what to do where it leads elsewhere."""

    address: Address
    severity: Severity
    fix: str


class _Identity(NamedTuple):
    started_at: datetime
    is_standby: bool
    database: int


async def check_addresses(context: Context) -> list[Finding]:
    """Find addresses that lead nowhere, to another database, to a standby, or to a pooler."""
    others = [await _check_other(context, other) for other in _others(context.settings)]
    return [
        *([_standby(context)] if context.server.is_standby else []),
        *(finding for findings in others for finding in findings),
    ]


def _standby(context: Context) -> Finding:
    setting = migration_address(context.settings).setting
    return Finding(
        check="addresses",
        severity=Severity.NOTICE,
        subject=setting,
        words="it leads to a standby: services, migrations and maintenance need the primary",
        fix=another_address(setting),
    )


async def check_pooler(context: Context) -> list[Finding]:
    """Find a transaction pooler in the way of migrations, and one that the settings don't know."""
    settings, findings = context.settings, list[Finding]()
    setting = _MIGRATIONS
    if settings.migration_url is None:
        setting = database_address(settings).setting
        findings += _of_services(settings, setting, pooled=context.is_pooled)
    if context.is_pooled:
        words = (
            "it goes through a transaction pooler, which migrations and maintenance refuse: their "
            "locks mean nothing there. They need the server's own address"
        )
        findings.append(_finding(Severity.WARNING, setting, words, await _direct_url(context)))
    return findings


def _others(settings: DatabaseSettings) -> Iterator[_Other]:
    if settings.migration_url is not None and settings.names_database:
        address = database_address(settings)
        fix = f"export AGENTOBS_DATABASE_URL=${_MIGRATIONS}"
        if settings.database_url is None:
            fix = f"unset AGENTOBS_HOST\n{fix}"
        yield _Other(address, Severity.CRITICAL, fix)
    if settings.read_url is not None:
        yield _Other(reading_address(settings), Severity.WARNING, f"unset {_READERS}")


async def _check_other(context: Context, other: _Other) -> list[Finding]:
    address, limit = other.address, context.thresholds.check_timeout
    try:
        async with open_connection(address, context.settings, limit) as connection:
            pooled = await is_pooled(connection)
            findings = await _compare(context, other, connection)
    except ConnectionFailedError as error:
        return [unreachable(error, address, other.severity)]
    return [*findings, *_of_services(context.settings, address.setting, pooled=pooled)]


async def _compare(context: Context, other: _Other, connection: AsyncConnection) -> list[Finding]:
    ours, theirs = await _identity(context.connection), await _identity(connection)
    # A standby is another server by nature.
    is_same = (ours.started_at, ours.database) == (theirs.started_at, theirs.database)
    if is_same or ours.is_standby or theirs.is_standby:
        return []
    return [
        Finding(
            check="addresses",
            severity=Severity.WARNING,
            subject=other.address.setting,
            words=f"it leads to another database than the one that is looked at here "
            f"({context.server.place})",
            fix=other.fix,
        )
    ]


async def _identity(connection: AsyncConnection) -> _Identity:
    async with connection.begin():
        return _Identity(*(await connection.execute(_IDENTITY)).one())


def _of_services(settings: DatabaseSettings, setting: str, *, pooled: bool) -> list[Finding]:
    if pooled and settings.pooler is None:
        words = (
            "it goes through a transaction pooler, and AGENTOBS_POOLER does not say so: what a "
            "service prepares is not there on the next backend"
        )
        return [_finding(Severity.WARNING, setting, words, "export AGENTOBS_POOLER=transaction")]
    # The setting is that of services and readers alike, and one of them may need it.
    if settings.pooler is not None and not pooled and setting != _READERS:
        words = (
            "AGENTOBS_POOLER says that it goes through a transaction pooler, and it does not: "
            "services do without prepared statements for nothing"
        )
        return [_finding(Severity.NOTICE, setting, words, "unset AGENTOBS_POOLER")]
    return []


async def _direct_url(context: Context) -> str:
    own = (await context.rows(_OWN_ADDRESS))[0]
    role, database = context.server.role, context.server.database
    return f"export {_MIGRATIONS}=postgresql://{role}@{own.host}:{own.port}/{database}"


def _finding(severity: Severity, setting: str, words: str, fix: str) -> Finding:
    return Finding(check="pooler", severity=severity, subject=setting, words=words, fix=fix)
