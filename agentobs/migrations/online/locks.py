"""Locks that are asked for briefly, again and again: who waits for one stalls all behind it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Literal

from sqlalchemy.exc import DBAPIError

from agentobs.errors import MigrationError
from agentobs.migrations.lock import pause
from agentobs.migrations.online.tables import EVENT_TABLES
from agentobs.sessions.failures import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

Mode = Literal["SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]

# Less than what a deadlock is looked for after: of two that wait for each other, this one gives up.
LOCK_TIMEOUT_MS = 150
_PAUSE_SECONDS = (0.1, 0.5)
_PATIENCE_SECONDS = 300
# Not available in time; and a deadlock, with a transaction that analyzes one table after the other.
_TRIED_AGAIN = frozenset({"55P03", "40P01"})
# What this run locks at some time: the tables, and what is beside them.
_TABLES = (
    "agent_definitions",
    *(each.name for each in EVENT_TABLES),
    *(each.beside for each in EVENT_TABLES),
    *(each.original_ids for each in EVENT_TABLES),
)
# Autovacuum gives way to who waits for it, but not before a deadlock is looked for. This mode stops
# no reader and no writer meanwhile, and no autovacuum begins anew. The last statement changes
# nothing, for TOAST has no such parameter: it locks the TOAST table, as LOCK does not. It writes to
# the catalog, so that it is left out for partitions whose TOAST nobody holds.
_SEND_AUTOVACUUM_AWAY = f"""
    DO $$
    DECLARE
        roots constant oid[] := ARRAY(SELECT to_regclass(name)
                                      FROM unnest('{{{",".join(_TABLES)}}}'::text[]) AS name);
        held record;
    BEGIN
        PERFORM set_config('lock_timeout', (setting::int + 1000)::text, true)
        FROM pg_settings WHERE name = 'deadlock_timeout';
        FOR held IN
            SELECT oid::regclass AS name, reltoastrelid <> 0 AND (oid = ANY (roots)
                   OR reltoastrelid IN (SELECT relation FROM pg_locks)) AS locks_toast
            FROM pg_class
            WHERE oid = ANY (roots) OR oid IN (
                SELECT relid FROM unnest(roots) AS root, pg_partition_tree(root))
            ORDER BY array_position(roots, oid), relname
        LOOP
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', held.name);
            IF held.locks_toast THEN
                EXECUTE format('ALTER TABLE ONLY %s RESET (toast.parallel_workers)', held.name);
            END IF;
        END LOOP;
    END
    $$
"""  # noqa: S608 (constant names)


def lock_tables(connection: Connection, mode: Mode) -> None:
    """Lock all three tables, or raise what `patiently` waits for.

    An autovacuum of them, or of what is beside them, is ended beforehand.
    """
    connection.exec_driver_sql(_SEND_AUTOVACUUM_AWAY)
    _wait_briefly(connection)
    names = ", ".join(("agent_definitions", *(table.name for table in EVENT_TABLES)))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE")


def _wait_briefly(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")


def patiently(
    connection: Connection,
    work: Callable[[Connection], None],
    *,
    before: Callable[[Connection], None] | None = None,
) -> None:
    """Do the work in a transaction of its own, again while others keep locks that it wants.

    `before` is done before each attempt. Raises MigrationError when five minutes have passed so.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _try(connection, work, before):
        if time.monotonic() >= deadline:
            raise MigrationError(
                "others kept locks on the tables for too long: look for transactions that have "
                "been open for long in pg_stat_activity, end them, and run it again: it goes on "
                "from where it is"
            )
        pause(connection, random.uniform(*_PAUSE_SECONDS))  # noqa: S311 (jitter, no secret)


def _try(
    connection: Connection,
    work: Callable[[Connection], None],
    before: Callable[[Connection], None] | None,
) -> bool:
    if before is not None:
        before(connection)
    try:
        with connection.begin():
            _wait_briefly(connection)
            work(connection)
    except DBAPIError as error:
        if facts_of(error).sqlstate not in _TRIED_AGAIN:
            raise
        return False
    return True
