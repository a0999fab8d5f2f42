"""A check that could not be made: that, too, is a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentobs.doctor.findings import Finding, Severity
from agentobs.errors import (
    AgentobsError,
    ConflictError,
    DatabaseError,
    SchemaMismatchError,
    StatementTimeoutError,
)
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from agentobs.doctor.context import Context

_NO_RIGHT = "42501"
# So many times as long may it take the next time.
_PATIENCE = 10


class _Words(NamedTuple):
    severity: Severity
    words: str
    fix: str


def failed(context: Context, check: str, error: Exception) -> Finding:
    """Make the finding of a check that ended with an error of ours, or of SQLAlchemy."""
    severity, words, fix = _words(context, error)
    return Finding(check=check, severity=severity, words=f"this can't be told: {words}", fix=fix)


def _words(context: Context, error: Exception) -> _Words:
    if isinstance(error, StatementTimeoutError):
        limit = context.thresholds.check_timeout.total_seconds()
        words = f"the server has no answer within {limit:g} s"
        return _Words(Severity.WARNING, words, _longer(context))
    if isinstance(error, ConflictError):
        words = "others hold a lock that it waits for; the check of locks names them"
        return _Words(Severity.WARNING, words, _longer(context))
    if isinstance(error, SchemaMismatchError):
        return _Words(Severity.WARNING, str(error), "agentobs db check")
    if isinstance(error, DatabaseError) and error.sqlstate == _NO_RIGHT:
        return _Words(Severity.NOTICE, str(error), _grant(context))
    # Only of the package's own errors the words are known to hold no data.
    words = str(error) if isinstance(error, AgentobsError) else type(error).__name__
    return _Words(Severity.WARNING, words, "agentobs db check")


def _longer(context: Context) -> str:
    seconds = _PATIENCE * context.thresholds.check_timeout.total_seconds()
    return f"agentobs doctor --timeout {seconds:g}"


def _grant(context: Context) -> str:
    """Grant what a check may have wanted: our tables, and DEFAULT, which is read by itself."""
    role, schema = quoted(context.server.role), context.schema.quoted
    tables = [
        each.qualified
        for each in context.relations
        if not each.is_readable and (each.name == each.root or each.name.endswith("_default"))
    ]
    grants = [f"GRANT USAGE ON SCHEMA {schema} TO {role};"]
    if tables:
        grants.append(f"GRANT SELECT ON {', '.join(tables)} TO {role};")
    return "\n".join(grants)
