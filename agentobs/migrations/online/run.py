"""One online upgrade: begun, gone on with, or taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentobs.errors import MigrationError
from agentobs.migrations import runner
from agentobs.migrations.catalog import newest_made
from agentobs.migrations.comparison import read_catalog
from agentobs.migrations.connection import default_schema, in_schema, open_connection
from agentobs.migrations.failures import explain_failure
from agentobs.migrations.lock import lock_key, migration_lock
from agentobs.migrations.online.begin import begin, refuse_obstacles
from agentobs.migrations.online.catching_up import catch_up
from agentobs.migrations.online.copying import copy_rows
from agentobs.migrations.online.indexing import index_partitions
from agentobs.migrations.online.locks import lock_tables, patiently
from agentobs.migrations.online.revisions import current_revision, run_locked
from agentobs.migrations.online.state import fingerprints_of, is_under_way, phases_of
from agentobs.migrations.online.swap import swap
from agentobs.migrations.online.tables import CHANGES, EVENT_TABLES, KEY, NOTE, STATE
from agentobs.migrations.online.verifying import verify
from agentobs.migrations.pooler import require_direct_connection
from agentobs.migrations.scripts import VERSION_TABLE, revisions
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from agentobs.migrations.comparison import Catalog
    from agentobs.settings import DatabaseSettings

# The first revision with all tables; the one before that which rewrites them; and the one after it,
# whose indexes are made beforehand with the others.
_FIRST, _BEFORE, _AFTER = "0003", "0004", "0006"
_SETTLE = text(
    """
    SELECT set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
           set_config('work_mem', '64MB', false), set_config('statement_timeout', '0', false),
           set_config('idle_in_transaction_session_timeout', '0', false)
    """
)


async def upgrade_online(
    revision: str = "head", *, settings: DatabaseSettings | None = None
) -> None:
    """Upgrade while others write: the event tables are rewritten beside themselves, then swapped.

    Goes on where a run before it was broken off, or from any revision, to head or one that is
    named. Raises MigrationError where revision 0005 would refuse, where the tables were changed
    since the run began, and for a revision at which it can't stop.
    """
    _require_end(revision)
    settings = settings or read_settings()
    current = await runner.current(settings=settings)
    if current is not None and current < _FIRST:
        await runner.upgrade(_FIRST, settings=settings)
    if current is not None and current < _AFTER:
        await _on_tables(settings, _rewrite_beside)
    await runner.upgrade(revision, settings=settings)


def _require_end(revision: str) -> None:
    # A step such as +1 would count from where the rewriting has ended.
    known = {each.revision for each in revisions() if each.revision >= _AFTER}
    if revision not in {"head", "heads"} | known:
        raise MigrationError(
            f"an online upgrade ends at {_AFTER} or later: name head, or leave out --online"
        )


async def undo_online(*, settings: DatabaseSettings | None = None) -> None:
    """Take back what an online upgrade that is not finished has made; rows are not touched."""
    await _on_tables(settings or read_settings(), _undo)


async def _on_tables(settings: DatabaseSettings, work: Callable[[Connection], None]) -> None:
    def locked_work(connection: Connection) -> None:
        require_direct_connection(connection)
        key = lock_key(settings.schema_name or default_schema(connection), VERSION_TABLE)
        with (
            migration_lock(connection, key, wait_seconds=settings.migration_lock_wait),
            in_schema(connection, settings.schema_name),
        ):
            connection.execute(_SETTLE)
            connection.commit()
            _explained(connection, work)

    async with (
        runner.alone(settings),
        open_connection(settings, application_name="agentobs online") as connection,
    ):
        await connection.run_sync(locked_work)


def _explained(connection: Connection, work: Callable[[Connection], None]) -> None:
    try:
        work(connection)
    except DBAPIError as error:
        if connection.closed or connection.invalidated:
            raise explain_failure(error, known=False) from error
        connection.rollback()
        raise explain_failure(error, revision=current_revision(connection)) from error


def _rewrite_beside(connection: Connection) -> None:
    """Go on from wherever the database is, to the revision whose indexes are made beforehand."""
    at = current_revision(connection) or _AFTER
    _require_recorded(connection, at)
    if at < _BEFORE:
        # Before anything is changed; what came up since is found once more.
        with connection.begin():
            refuse_obstacles(connection)
        run_locked(connection, _BEFORE)
    if at <= _BEFORE:
        _rewrite(connection)
    if at < _AFTER:
        run_locked(connection, _AFTER)


def _require_recorded(connection: Connection, recorded: str) -> None:
    made = newest_made(connection)
    connection.rollback()
    if made is not None and made > recorded:
        raise MigrationError(
            f"{recorded} is recorded, and the tables are those of {made}: record it with "
            f"`agentobs db stamp {made}`, and run it again",
            revision=recorded,
        )


def _rewrite(connection: Connection) -> None:
    found = _read(connection)
    if not is_under_way(connection):
        begin(connection, fingerprints_of(found))
    phases = phases_of(connection, found)
    for table in EVENT_TABLES:
        if phases[table.name] == "copying":
            copy_rows(connection, table)
        index_partitions(connection, table, found)
    for table in EVENT_TABLES:
        catch_up(connection, table)
        verify(connection, table)
        # Late rows may have made months since.
        index_partitions(connection, table, found)
    phases_of(connection, _read(connection))
    swap(connection)


def _undo(connection: Connection) -> None:
    if not is_under_way(connection):
        raise MigrationError("no online upgrade is under way: there is nothing to take back")

    def work(connection: Connection) -> None:
        lock_tables(connection, "ACCESS EXCLUSIVE")
        beside = ", ".join(f"{table.beside}, {table.original_ids}" for table in EVENT_TABLES)
        # With it go the triggers.
        connection.exec_driver_sql(f"DROP FUNCTION {NOTE}() CASCADE")
        connection.exec_driver_sql(f"DROP TABLE {beside}, {CHANGES}, {STATE}")
        connection.exec_driver_sql(f"DROP FUNCTION {KEY}(uuid, timestamptz)")

    patiently(connection, work)


def _read(connection: Connection) -> Catalog:
    found = read_catalog(connection)
    connection.rollback()
    return found
