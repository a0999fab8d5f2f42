"""The server: whether it can be reached, is of a version that is supported, and tells the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.maintenance.months import SLACK
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from agentobs.doctor.context import Context
    from agentobs.doctor.findings import Server
    from agentobs.errors import DatabaseError
    from agentobs.sessions.address import Address

OLDEST, NEWEST = 14, 18
"""The versions of PostgreSQL that are supported."""

_VERSION_STEP = 10_000
_NOW = text("SELECT clock_timestamp()")
# The shortest of some round trips tells the time best.
_LOOKS_AT_THE_CLOCK = 3
_UPGRADE_SERVER = "pg_upgrade --old-bindir=… --new-bindir=… --old-datadir=… --new-datadir=…"


class Skew(NamedTuple):
    """How far a clock is ahead of ours, and how exactly that is known."""

    ahead: timedelta
    uncertainty: timedelta


def unreachable(error: DatabaseError, address: Address, severity: Severity) -> Finding:
    """Make the finding of an address where nobody answers; the error's words hold no secret."""
    return Finding(
        check="reachable",
        severity=severity,
        subject=address.setting,
        words=str(error),
        fix=_way_in(error, address),
    )


def _way_in(error: DatabaseError, address: Address) -> str:
    database = address.url.database
    if error.sqlstate == "3D000" and database:
        return f"CREATE DATABASE {quoted(database)};"
    if error.sqlstate == "42501" and database and address.url.username:
        return f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(address.url.username)};"
    return another_address(address.setting)


def another_address(setting: str) -> str:
    """Return the command that sets an address anew."""
    named = "AGENTOBS_DATABASE_URL" if setting == "AGENTOBS_HOST" else setting
    return f"export {named}=postgresql://USER:PASSWORD@HOST:5432/DATABASE"


async def check_version(context: Context) -> list[Finding]:
    """Find a server that is older or newer than what is supported."""
    server, major = context.server, context.server.version_number // _VERSION_STEP
    if major < OLDEST:
        words = (
            f"PostgreSQL {server.version} is older than {OLDEST}, the oldest one that is "
            "supported: nothing else is looked at"
        )
        return [_version(server, Severity.CRITICAL, words, _UPGRADE_SERVER)]
    if major > NEWEST:
        words = (
            f"PostgreSQL {server.version} is newer than {NEWEST}, the newest one that this version "
            "of agentobs-orm knows"
        )
        return [_version(server, Severity.NOTICE, words, "pip install --upgrade agentobs-orm")]
    return []


def _version(server: Server, severity: Severity, words: str, fix: str) -> Finding:
    return Finding(check="version", severity=severity, subject=server.place, words=words, fix=fix)


async def check_clock(context: Context) -> list[Finding]:
    """Find a server whose clock differs from ours: keys hold the instants of both."""
    skew = await _skew(context)
    # What the round trip may explain is no skew.
    certain = abs(skew.ahead) - skew.uncertainty
    if certain <= context.thresholds.clock_skew:
        return []
    way = "ahead of" if skew.ahead > timedelta(0) else "behind"
    words = (
        f"the server's clock is {abs(skew.ahead).total_seconds():,.1f} s {way} this machine's: "
        "rows lie in the wrong hours, and beyond a day a month refuses them where one clock made "
        "the id and the other one the instant. Set the one that is wrong"
    )
    severity = Severity.CRITICAL if certain > SLACK else Severity.WARNING
    return [
        Finding(
            check="clock",
            severity=severity,
            subject=context.server.place,
            words=words,
            fix="timedatectl set-ntp true",
        )
    ]


async def _skew(context: Context) -> Skew:
    async with context.connection.begin():
        looks = [await _look(context) for _ in range(_LOOKS_AT_THE_CLOCK)]
    return min(looks, key=lambda look: look.uncertainty)


async def _look(context: Context) -> Skew:
    before = _now()
    theirs = await context.connection.scalar(_NOW)
    half = (_now() - before) / 2
    return Skew(theirs - (before + half), half)


def _now() -> datetime:
    return datetime.now(UTC)
