"""Grant roles their rights in a database, or say what would be granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentobs.errors import ConfigurationError, MigrationError, UnknownRevisionError
from agentobs.migrations.connection import default_schema, open_connection, quoted
from agentobs.migrations.grants import Grants
from agentobs.migrations.lock import lock_key, migration_lock
from agentobs.migrations.pooler import require_direct_connection
from agentobs.migrations.scripts import VERSION_TABLE, revisions
from agentobs.sessions.failures import facts_of
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from agentobs.settings import DatabaseSettings

_AS_OWNER = "Run it as the owner of the schema and of its tables (AGENTOBS_MIGRATION_URL)"
_MISSING_ROLES = text(
    """
    SELECT wanted FROM unnest(CAST(:roles AS text[])) WITH ORDINALITY AS given (wanted, place)
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
    ORDER BY place
    """
)
# For whoever may grant some of it the server only warns of the rest.
_NOT_GRANTED = text(
    """
    SELECT format('%s on %s to %s', privilege, coalesce(relation, 'schema ' || :schema), role)
    FROM unnest(CAST(:roles AS text[]), CAST(:privileges AS text[]), CAST(:relations AS text[]))
        AS wanted (role, privilege, relation)
    WHERE NOT CASE WHEN relation IS NULL THEN has_schema_privilege(role, :schema, privilege)
                   ELSE has_table_privilege(role, relation, privilege) END
    """
)


async def grant(
    *,
    writers: Iterable[str] = (),
    readers: Iterable[str] = (),
    apply: bool = False,
    settings: DatabaseSettings | None = None,
) -> tuple[str, ...]:
    """Return the SQL that lets roles write or read, statement by statement; `apply` runs it.

    It is run in one transaction, by the owner of the tables. What roles may do already, they keep.
    Raises MigrationError where a role does not exist, where the database is not at head, and where
    a right can't be granted: nothing is changed then.
    """
    settings = settings or read_settings()
    grants = Grants(tuple(writers), tuple(readers))
    if not grants.roles:
        raise ConfigurationError("no role is named: name one that is to write, or to read")
    async with open_connection(settings) as connection:
        return await connection.run_sync(_grant, grants, settings, apply)


def _grant(
    connection: Connection, grants: Grants, settings: DatabaseSettings, apply: bool
) -> tuple[str, ...]:
    try:
        schema = settings.schema_name or default_schema(connection)
        _require_head(connection, schema)
        _require_roles(connection, grants)
        statements = tuple(grants.statements(schema))
        if apply:
            require_direct_connection(connection)
            key = lock_key(schema, VERSION_TABLE)
            with migration_lock(connection, key, wait_seconds=settings.migration_lock_wait):
                _run(connection, grants, schema, statements)
    except DBAPIError as error:
        facts = facts_of(error)
        raise MigrationError(
            f"nothing was granted ({facts.sqlstate or 'no answer'}): {facts.reason}. {_AS_OWNER}"
        ) from error
    return statements


def _require_head(connection: Connection, schema: str) -> None:
    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    found = MigrationContext.configure(connection, opts=options).get_current_heads()
    connection.rollback()
    known = [each.revision for each in revisions()]
    if not found:
        raise MigrationError(
            f"schema {schema} has no tables of agentobs: run `agentobs db upgrade`, or name their "
            "schema in AGENTOBS_SCHEMA"
        )
    if found[0] not in known:
        raise UnknownRevisionError(
            f"the database is at revision {found[0]}, which this version of agentobs-orm does not "
            "know: a newer one migrated it. Install that version or a later one",
            revision=found[0],
        )
    if found[0] != known[0]:
        raise MigrationError(
            f"the database is at {found[0]} and the package at {known[0]}: "
            "run `agentobs db upgrade`",
            revision=found[0],
        )


def _require_roles(connection: Connection, grants: Grants) -> None:
    missing = connection.scalars(_MISSING_ROLES, {"roles": list(grants.roles)}).all()
    connection.rollback()
    if missing:
        raise MigrationError(
            f"there is no role {', '.join(missing)}: make it first (CREATE ROLE … LOGIN), in the "
            "spelling that pg_roles has"
        )


def _run(connection: Connection, grants: Grants, schema: str, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
    wanted = list(grants.wanted())
    values = {
        "schema": schema,
        "roles": [each.role for each in wanted],
        "privileges": [each.privilege for each in wanted],
        "relations": [each.name and f"{quoted(schema)}.{quoted(each.name)}" for each in wanted],
    }
    missing = connection.scalars(_NOT_GRANTED, values).all()
    if missing:
        connection.rollback()
        raise MigrationError(
            f"nothing was granted: this role may not grant {'; '.join(missing)}. {_AS_OWNER}"
        )
    connection.commit()
