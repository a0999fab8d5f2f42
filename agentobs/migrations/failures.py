"""What the database said during a migration, as an error that tells the operator the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MigrationError, TablesExistError

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.exc import DBAPIError

_DUPLICATE_TABLE = "42P07"
_ADVICE = {
    "42501": "let a role with that right run the migration (AGENTOBS_MIGRATION_URL)",
    "55P03": "a transaction in the way holds the lock: look in pg_stat_activity, then run again",
    "57014": "a statement timeout of the role or database ended it: raise that for migrations",
}


def explain_failure(error: DBAPIError, *, revision: str | None) -> MigrationError:
    """Make the error for a run that the database ended; `revision` is where it is now."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    reason = _reason(error)
    if sqlstate == _DUPLICATE_TABLE:
        return TablesExistError(
            f"{reason}. Nothing was changed: name another schema in AGENTOBS_SCHEMA, or, where "
            "these are exactly the tables of revision 0003, say so with `agentobs db stamp 0003`",
            revision=revision,
        )
    advice = _ADVICE.get(str(sqlstate), "nothing of the failed revision was kept")
    return MigrationError(
        f"the migration failed ({sqlstate or type(error.orig).__name__}): {reason}. "
        f"The database is at {revision or 'base'}; {advice}",
        revision=revision,
    )


def explain_connection_error(error: OSError | DBAPIError, url: URL) -> MigrationError:
    """Make the error for a server that can't be reached; the password is not shown."""
    reason = _reason(error) if hasattr(error, "orig") else str(error)
    place = url.set(drivername="postgresql").render_as_string(hide_password=True)
    return MigrationError(
        f"can't connect to {place}: {reason}. Is the server up, and are host, port, database, "
        "user and password right?"
    )


def _reason(error: DBAPIError | OSError) -> str:
    """Return the server's message alone: without the driver's class name and the statement."""
    driver_error = getattr(error, "orig", None)
    cause = getattr(driver_error, "__cause__", None) or driver_error or error
    return str(cause).partition("\n")[0].rstrip(".")
