"""Take over the three tables where hand-run scripts made them, before there were revisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentobs.errors import AdoptionRefusedError, MigrationError
from agentobs.migrations.catalog import newest_made
from agentobs.migrations.comparison import Comparison, compare, expected_catalog, read_catalog
from agentobs.migrations.connection import default_schema, in_schema, open_connection
from agentobs.migrations.failures import explain_failure
from agentobs.migrations.lock import lock_key, migration_lock
from agentobs.migrations.mending import mend
from agentobs.migrations.pooler import require_direct_connection
from agentobs.migrations.scripts import VERSION_TABLE, alembic_config, statements_of
from agentobs.sessions.failures import facts_of
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from agentobs.migrations.comparison import Difference
    from agentobs.settings import DatabaseSettings

REVISION: Final = "0003"
"""The revision that is recorded: its tables are those of the scripts."""

# Syntax error or access rule violation.
_NO_SUCH_QUESTION = "42"
# Revisions that may be recorded although tables of later ones are there.
_BEFORE = (None, "0001", "0002")
_FOREIGN_OWNERS = text(
    """
    SELECT relname, pg_get_userbyid(relowner) FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND relname = ANY (:tables) AND NOT pg_has_role(relowner, 'USAGE')
    ORDER BY relname
    """
)


@dataclass(frozen=True)
class Adoption:
    """What `adopt` found and did.

    `revision` is what was recorded before. `obstacles` are the host's objects under which revision
    0005 refuses to rewrite the event tables, in the server's words. `repaired` are the differences
    that were mended, and `is_adopted` says whether the revision is recorded now.
    """

    schema: str
    revision: str | None
    comparison: Comparison
    obstacles: str | None = None
    repaired: tuple[Difference, ...] = ()
    is_adopted: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether there is something to adopt: no revision is recorded that has all tables."""
        return self.revision in _BEFORE

    def refusal(self, *, repair: bool) -> AdoptionRefusedError | None:
        """Return the error with which `adopt` would end, or None."""
        left = [each for each in self.comparison.faults if not (repair and each.is_safe)]
        return AdoptionRefusedError(left, can_repair=not repair) if left else None


async def inspect(*, settings: DatabaseSettings | None = None) -> Adoption:
    """Compare the tables with those of revision 0003; change nothing.

    Raises MigrationError where there are none, where they are of a later revision, or where they
    belong to a role that this one is not.
    """
    settings = settings or read_settings()
    async with open_connection(settings) as connection:
        return await connection.run_sync(_on_connection, settings, _inspect)


async def adopt(*, repair: bool = False, settings: DatabaseSettings | None = None) -> Adoption:
    """Record revision 0003 for the tables that are there; `repair` mends what is safe to mend.

    Raises AdoptionRefusedError, with nothing changed, where differences are left that are not to
    be mended so. A repair that fails, for rows do not allow it, is a MigrationError: what was
    mended before it stays, and the next call goes on.
    """
    settings = settings or read_settings()

    def work(connection: Connection) -> Adoption:
        require_direct_connection(connection)
        schema = settings.schema_name or default_schema(connection)
        key = lock_key(schema, VERSION_TABLE)
        with migration_lock(connection, key, wait_seconds=settings.migration_lock_wait):
            return _on_connection(connection, settings, _adopt_repaired if repair else _adopt)

    async with open_connection(settings) as connection:
        return await connection.run_sync(work)


def _on_connection(
    connection: Connection, settings: DatabaseSettings, work: Callable[[Connection, str], Adoption]
) -> Adoption:
    schema = settings.schema_name or default_schema(connection)
    with in_schema(connection, settings.schema_name):
        try:
            return work(connection, schema)
        except DBAPIError as error:
            raise explain_failure(error, known=False) from error


def _inspect(connection: Connection, schema: str) -> Adoption:
    revision = _recorded(connection)
    if revision not in _BEFORE:
        return Adoption(schema, revision, Comparison())
    _require_ownership(connection)
    _require_scripted(connection)
    comparison = _compare(connection, schema)
    obstacles = _obstacles(connection)
    connection.rollback()
    return Adoption(schema, revision, comparison, obstacles)


def _adopt(connection: Connection, schema: str) -> Adoption:
    found = _inspect(connection, schema)
    if not found.is_needed:
        return found
    return _record(connection, _without_faults(found))


def _adopt_repaired(connection: Connection, schema: str) -> Adoption:
    found = _inspect(connection, schema)
    if not found.is_needed:
        return found
    if (refusal := found.refusal(repair=True)) is not None:
        raise refusal
    mend(connection, found.comparison.differences)
    now = replace(_inspect(connection, schema), repaired=found.comparison.differences)
    return _record(connection, _without_faults(now))


def _without_faults(adoption: Adoption) -> Adoption:
    if (refusal := adoption.refusal(repair=False)) is not None:
        raise refusal
    return adoption


def _recorded(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    heads = context.get_current_heads()
    connection.rollback()
    return heads[0] if heads else None


def _compare(connection: Connection, schema: str) -> Comparison:
    expected, found = expected_catalog(REVISION), read_catalog(connection)
    if found.tables.keys().isdisjoint(expected.tables):
        raise MigrationError(
            f"schema {schema} holds none of the tables {', '.join(expected.tables)}: make them "
            "with `agentobs db upgrade`, or name another schema in AGENTOBS_SCHEMA"
        )
    comparison = compare(expected, found)
    judged = tuple(_judged(connection, each) for each in comparison.differences)
    return replace(comparison, differences=judged)


def _judged(connection: Connection, difference: Difference) -> Difference:
    """Look at the rows before anything is mended: a CHECK that they break would refuse writers."""
    if not (difference.is_safe and difference.breach):
        return difference
    try:
        with connection.begin_nested():
            statement = f"SELECT EXISTS ({difference.breach})"
            is_broken = connection.exec_driver_sql(statement).scalar_one()
    except DBAPIError as error:
        # What it asks of is missing itself, or of another type: that is told on its own.
        if not (facts_of(error).sqlstate or "").startswith(_NO_SUCH_QUESTION):
            raise
        return difference
    if not is_broken:
        return difference
    return replace(difference, words=f"{difference.words}, and rows break it", is_safe=False)


def _require_ownership(connection: Connection) -> None:
    tables = list(expected_catalog(REVISION).tables)
    for table, owner in connection.execute(_FOREIGN_OWNERS, {"tables": tables}):
        raise MigrationError(
            f"table {table} belongs to {owner}, and only its owner may change it: connect as that "
            "role, or as a member of it (AGENTOBS_MIGRATION_URL)"
        )


def _require_scripted(connection: Connection) -> None:
    """Refuse tables of a later revision, whose own work a repair would take back."""
    if (made := newest_made(connection)) is not None:
        raise MigrationError(
            f"the tables are no scripts' own, but those of revision {made}, which is not recorded: "
            f"record it with `agentobs db stamp {made}`; `agentobs doctor` tells what differs"
        )


def _obstacles(connection: Connection) -> str | None:
    """Return what revision 0005 says of the host's objects that are in its way, if anything."""
    try:
        for statement in statements_of("0005_dependents.sql"):
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        facts = facts_of(error)
        # Tables that are not there yet have nothing that stands on them.
        if facts.sqlstate not in {"AO002", "42P01"}:
            raise
        return facts.reason if facts.sqlstate == "AO002" else None
    finally:
        connection.rollback()
    return None


def _record(connection: Connection, adoption: Adoption) -> Adoption:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    with connection.begin():
        context.stamp(ScriptDirectory.from_config(alembic_config()), REVISION)
    return replace(adoption, is_adopted=True)
