"""Run what mends differences, one statement at a time, so that nobody waits for all of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentobs.errors import MigrationError
from agentobs.migrations.connection import autocommit
from agentobs.sessions.failures import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from agentobs.migrations.comparison import Difference

# Whoever waits for a lock stalls all behind it.
_OTHERS_WAIT = "5s"
# What is built beside the writers waits for their old transactions, and nobody waits for it.
_NOBODY_WAITS = "60s"
_SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :timeout, false)")


def mend(connection: Connection, differences: Iterable[Difference]) -> None:
    """Run the statements of the differences; raise MigrationError at the first that fails.

    Each statement is committed by itself: what is mended stays.
    """
    with _committing_each(connection):
        for difference in differences:
            for statement in difference.statements:
                _run(connection, statement, difference)


def _run(connection: Connection, statement: str, difference: Difference) -> None:
    timeout = _NOBODY_WAITS if " CONCURRENTLY " in statement else _OTHERS_WAIT
    try:
        connection.execute(_SET_LOCK_TIMEOUT, {"timeout": timeout})
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        facts = facts_of(error)
        raise MigrationError(
            f"{difference}: this could not be mended ({facts.sqlstate}): {facts.reason}. What was "
            f"mended before it stays, and no revision is recorded. The statement: {statement}"
        ) from error


@contextmanager
def _committing_each(connection: Connection) -> Iterator[None]:
    with autocommit(connection):
        try:
            yield
        finally:
            if not (connection.closed or connection.invalidated):
                connection.exec_driver_sql("RESET lock_timeout")
