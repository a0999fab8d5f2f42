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
_LOCK_NOT_AVAILABLE = "55P03"


def lock_tables(connection: Connection, mode: Mode) -> None:
    """Lock all three tables, or raise what `patiently` waits for."""
    names = ", ".join(("agent_definitions", *(table.name for table in EVENT_TABLES)))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE")


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
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
            work(connection)
    except DBAPIError as error:
        if facts_of(error).sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True
