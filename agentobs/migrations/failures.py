"""What the database said during a migration, as an error that tells the operator the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MigrationError, TablesExistError

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.exc import DBAPIError

# Raised by revision 0001 itself, before it makes anything.
_TABLES_WITHOUT_REVISION = "AO001"
_DEPENDENT_OBJECTS = "2BP01"
_NOT_ALLOWED = "42501"
_ADVICE = {
    "25006": "the server takes no writes: name its primary (AGENTOBS_MIGRATION_URL)",
    "3F000": "make the schema (CREATE SCHEMA), or name another one in AGENTOBS_SCHEMA",
    "42501": "let a role with that right run the migration (AGENTOBS_MIGRATION_URL)",
    "55P03": "a transaction in the way holds the lock: look in pg_stat_activity, then run again",
    "57014": "somebody cancelled it, or a statement timeout of the role or database did",
}

_CONNECTION_ADVICE = {
    "42501": "give the role that right (a role for tests makes databases: CREATEDB)",
    "28000": "is this user allowed to connect from here (pg_hba.conf)?",
    "28P01": "are user and password right?",
    "3D000": "make the database (CREATE DATABASE), or name another one",
    "53300": "the server is full: end idle connections, or raise max_connections",
    "57P03": "the server is starting or stopping: try again in a moment",
}


def explain_failure(
    error: DBAPIError, *, revision: str | None = None, known: bool = True
) -> MigrationError:
    """Make the error for a run that the database ended.

    `revision` is where the database is now, where that is `known`.
    """
    sqlstate = getattr(error.orig, "sqlstate", None)
    reason = reason_of(error)
    if sqlstate == _TABLES_WITHOUT_REVISION:
        return TablesExistError(
            f"{reason}. Nothing was changed: name another schema in AGENTOBS_SCHEMA, or, where "
            "these are exactly the tables of revision 0003, say so with `agentobs db stamp 0003`",
            revision=revision,
        )
    place = f"is at {revision or 'base'}" if known else "is where `agentobs db current` says"
    advice = _ADVICE.get(str(sqlstate), "nothing of a failed revision is kept")
    return MigrationError(
        f"the migration failed ({sqlstate or type(error.orig).__name__}): {reason}. "
        f"The database {place}; {advice}",
        revision=revision,
    )


def explain_connection_error(error: OSError | DBAPIError, url: URL) -> MigrationError:
    """Make the error for a server that can't be reached; the password is not shown."""
    reason = reason_of(error) if hasattr(error, "orig") else str(error)
    place = url.set(drivername="postgresql").render_as_string(hide_password=True)
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    advice = _CONNECTION_ADVICE.get(str(sqlstate), "is the server up, and are host and port right?")
    return MigrationError(
        f"can't {'use' if sqlstate == _NOT_ALLOWED else 'connect to'} {place}: {reason}: {advice}"
    )


def reason_of(error: DBAPIError | OSError) -> str:
    """Return the server's message alone: without the driver's class name and the statement."""
    driver_error = getattr(error, "orig", None)
    cause = getattr(driver_error, "__cause__", None) or driver_error or error
    reason = str(cause).partition("\n")[0].rstrip(".")
    if getattr(cause, "sqlstate", None) == _DEPENDENT_OBJECTS:
        # This detail holds names of objects, never of rows.
        reason = f"{reason} ({' '.join(str(getattr(cause, 'detail', '')).split())})"
    return reason
