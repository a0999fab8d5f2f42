"""What the database said during a migration, as an error that tells the operator the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MigrationError, TablesExistError
from agentobs.sessions.failures import driver_error, facts_of

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

# Raised by revision 0001 itself, before it makes anything.
_TABLES_WITHOUT_REVISION = "AO001"
_THERE_ALREADY = "what it makes is there already: `agentobs doctor` tells which revision to record"
_ADVICE = {
    "25006": "the server takes no writes: name its primary (AGENTOBS_MIGRATION_URL)",
    "3F000": "make the schema (CREATE SCHEMA), or name another one in AGENTOBS_SCHEMA",
    "42501": "let a role with that right run the migration (AGENTOBS_MIGRATION_URL)",
    "55P03": "a transaction in the way holds the lock: look in pg_stat_activity, then run again",
    "42710": _THERE_ALREADY,
    "42723": _THERE_ALREADY,
    "42P07": _THERE_ALREADY,
    "40P01": "others wanted its locks, too: run it again",
    "53200": "raise max_locks_per_transaction: each month of each event table takes some locks",
    "AO002": "drop what is named (or validate it, if it is a constraint that is not valid), run "
    "it again, and make it anew afterwards",
    "AO003": "report this, please: nothing of the revision is kept",
    "57014": "somebody cancelled it, or a statement timeout of the role or database did",
}


def explain_failure(
    error: DBAPIError, *, revision: str | None = None, known: bool = True
) -> MigrationError:
    """Make the error for a run that the database ended.

    `revision` is where the database is now, where that is `known`.
    """
    facts = facts_of(error)
    if facts.sqlstate == _TABLES_WITHOUT_REVISION:
        return TablesExistError(
            f"{facts.reason}. Nothing was changed: take them over with `agentobs db adopt`, or "
            "name another schema in AGENTOBS_SCHEMA",
            revision=revision,
        )
    place = f"is at {revision or 'base'}" if known else "is where `agentobs db current` says"
    advice = _ADVICE.get(str(facts.sqlstate), "nothing of a failed revision is kept")
    return MigrationError(
        f"the migration failed ({facts.sqlstate or type(driver_error(error)).__name__}): "
        f"{facts.reason}. The database {place}; {advice}",
        revision=revision,
    )
