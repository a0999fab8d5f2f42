"""Run revisions under locks that are all taken before their first statement.

Each would take them one after the other: of two that wait for each other, the server may choose
the one that writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from agentobs.migrations.online.locks import lock_tables, patiently
from agentobs.migrations.scripts import VERSION_TABLE, alembic_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

logger = logging.getLogger("agentobs.migrations")

Steps = Mapping[str, Any]
"""What a revision's file defines, by name."""


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; ends the transaction."""
    heads = _context(connection).get_current_heads()
    connection.rollback()
    return heads[0] if heads else None


def run_locked(
    connection: Connection,
    revision: str,
    work: Callable[[Connection, Steps], None] | None = None,
    *,
    before: Callable[[Connection], None] | None = None,
) -> None:
    """Do the work, or else the revision's upgrade, and record the revision, in one transaction.

    `before` is done before each attempt to get the locks, in transactions of its own.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    steps = vars(scripts.get_revision(revision).module)
    context = _context(connection)

    def locked_work(connection: Connection) -> None:
        lock_tables(connection, "ACCESS EXCLUSIVE")
        began = time.monotonic()
        with Operations.context(context):
            if work is None:
                steps["upgrade"]()
            else:
                work(connection, steps)
        context.stamp(scripts, revision)
        logger.info("revision %s held its locks for %.2f s", revision, time.monotonic() - began)

    patiently(connection, locked_work, before=before)


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
