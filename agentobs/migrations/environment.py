"""What alembic/env.py does, so that it does the same from a shell, a service and a wheel."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import DropTable

from agentobs.errors import AgentobsError, MigrationError, UnknownRevisionError
from agentobs.migrations import autogenerate, catalog
from agentobs.migrations.connection import (
    create_schema,
    default_schema,
    drop_schema,
    in_schema,
    quoted,
)
from agentobs.migrations.failures import explain_failure
from agentobs.migrations.lock import lock_key, migration_lock
from agentobs.migrations.online.state import require_none_under_way
from agentobs.migrations.pooler import require_direct_connection
from agentobs.migrations.scripts import VERSION_TABLE
from agentobs.migrations.summary import StepTimer, print_summary
from agentobs.models import metadata
from agentobs.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from agentobs.settings import DatabaseSettings


def run_offline(settings: DatabaseSettings) -> None:
    """Write the SQL of the run to Alembic's output; connect to nothing."""
    timer = StepTimer()
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        on_version_apply=timer.record,
        **_options(settings),
    )
    with context.begin_transaction():
        if settings.schema_name is not None:
            path = quoted(settings.schema_name)
            context.get_context().impl.static_output(f"SET search_path TO {path};")
        context.run_migrations()
        if timer.ended_at_base:
            context.execute(DropTable(_version_table(settings)))


def run_online(connection: Connection, settings: DatabaseSettings) -> None:
    """Run Alembic's command on the connection, which must have no open transaction.

    A command that changes the database holds the migration lock for its run and ends with a
    summary on stderr. Raises a MigrationError that says at which revision the database is left.
    """
    if connection.in_transaction():
        raise MigrationError(
            "the connection has a transaction open: commit it first, each revision makes its own"
        )
    timer = StepTimer()
    try:
        _run_in_schema(connection, settings, timer)
    except DBAPIError as error:
        raise explain_failure(error, revision=timer.revision, known=timer.is_known) from error


@contextmanager
def errors_for_operators() -> Iterator[None]:
    """Make an error one line on stderr where Alembic's command line runs, and leave stdout to SQL.

    A program that runs Alembic's commands gets the CommandError that it expects of them.
    """
    try:
        yield
    except (AgentobsError, CommandError) as error:
        if context.config.cmd_opts is not None:
            sys.exit(printable(f"agentobs: {error}"))
        raise CommandError(str(error)) from error


def _run_in_schema(connection: Connection, settings: DatabaseSettings, timer: StepTimer) -> None:
    name = settings.schema_name
    if not changes_database():
        with in_schema(connection, name):
            _run(connection, settings, timer, dont_mutate=True)
        return
    require_direct_connection(connection)
    schema = default_schema(connection) if name is None else name
    key = lock_key(schema, VERSION_TABLE)
    with (
        migration_lock(connection, key, wait_seconds=settings.migration_lock_wait),
        _existing_schema(connection, name, timer),
        in_schema(connection, name),
    ):
        _run_and_report(connection, settings, timer, schema)


@contextmanager
def _existing_schema(connection: Connection, name: str | None, timer: StepTimer) -> Iterator[None]:
    """Make the schema of the host's choice where it is missing, and keep it if it is used."""
    made = name is not None and create_schema(connection, name)
    try:
        yield
    finally:
        if name is not None and made and timer.is_at_base:
            with suppress(DBAPIError):
                drop_schema(connection, name)


def _run_and_report(
    connection: Connection, settings: DatabaseSettings, timer: StepTimer, schema: str
) -> None:
    try:
        _run(connection, settings, timer)
    except (DBAPIError, AgentobsError) as error:
        timer.forget()
        # A connection that broke would be made anew, without the lock. And the first error tells
        # more than what the tidying may meet.
        if not getattr(error, "connection_invalidated", False):
            with suppress(DBAPIError):
                timer.note(_current_revision(connection))
                _drop_empty_version_table(connection, settings)
        raise
    timer.note(_current_revision(connection))
    _drop_empty_version_table(connection, settings)
    print_summary(
        timer,
        schema=schema,
        tables=catalog.table_sizes(connection, metadata.tables),
    )


def _run(
    connection: Connection, settings: DatabaseSettings, timer: StepTimer, **options: Any
) -> None:
    options["on_version_apply"] = timer.record
    context.configure(connection=connection, **_options(settings), **options)
    timer.note(_current_revision(connection))
    if changes_database():
        require_none_under_way(connection)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except CommandError as error:
        raise _in_words(error, timer.revision) from error


def _options(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "version_table": VERSION_TABLE,
        "version_table_schema": settings.schema_name,
        "transaction_per_migration": True,
        "compare_server_default": True,
        # The second plugin sees CHECK constraints that were added or removed.
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        "include_name": autogenerate.is_ours,
        "include_object": autogenerate.is_of_a_revision,
        "render_item": autogenerate.render_type,
        "process_revision_directives": autogenerate.name_revision,
    }


def changes_database() -> bool:
    """Tell whether Alembic's command is one that changes the database."""
    # Only upgrade, downgrade and stamp have a revision that they go to.
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    except CommandError:
        # A revision that nobody knows is found out by the command itself.
        return True
    return True


def _in_words(error: CommandError, current: str | None) -> MigrationError:
    known = sorted(script.revision for script in context.script.walk_revisions())
    if current is not None and current not in known:
        return UnknownRevisionError(
            f"the database is at revision {current}, which this version of agentobs-orm does not "
            "know: a newer one migrated it. Install that version or a later one",
            revision=current,
        )
    if "not up to date" in str(error):
        return MigrationError(
            f"the database is at {current or 'base'} and the package at {known[-1]}: "
            "run `agentobs db upgrade`",
            revision=current,
        )
    return MigrationError(f"{error} (the revisions are {', '.join(known)})", revision=current)


def _version_table(settings: DatabaseSettings) -> Table:
    return Table(VERSION_TABLE, MetaData(), schema=settings.schema_name)


def _current_revision(connection: Connection) -> str | None:
    # Every look at the catalog opens a transaction, and Alembic would take it for its caller's:
    # it would then commit nothing, and say nothing of it.
    connection.rollback()
    heads = context.get_context().get_current_heads()
    connection.rollback()
    return heads[0] if heads else None


def _drop_empty_version_table(connection: Connection, settings: DatabaseSettings) -> None:
    """Leave nothing behind at base."""
    if _current_revision(connection) is None:
        if inspect(connection).has_table(VERSION_TABLE, schema=settings.schema_name):
            connection.execute(DropTable(_version_table(settings)))
        connection.commit()
