"""Our revisions, run by the `env.py` of a host: after its own, with a version table of ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic import command, context

from agentobs.errors import MigrationError
from agentobs.migrations.environment import changes_database, errors_for_operators
from agentobs.migrations.runner import run_on, undisturbed
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from agentobs.settings import DatabaseSettings


def upgrade_with_host(connection: Connection, *, settings: DatabaseSettings | None = None) -> None:
    """Upgrade our tables to head on the connection of the host's run, when that one is at its head.

    For the end of an `env.py`, after `context.run_migrations()`. It does nothing where the command
    only reads, and where the host's run ended before its heads, as a downgrade does: ours go back
    by `agentobs db downgrade` alone. The connection must have no transaction open. Where it fails,
    Alembic's command line ends with one line on stderr; a program gets its CommandError, with a
    MigrationError as the cause.
    """
    with errors_for_operators():
        if not changes_database():
            return
        if connection.in_transaction():
            raise MigrationError(
                "the connection has a transaction open after the host's migrations: commit it "
                "before upgrade_with_host(), each of our revisions makes its own"
            )
        if _host_is_at_head(connection):
            with _host_environment_kept(), undisturbed():
                run_on(
                    connection,
                    settings or read_settings(),
                    lambda config: command.upgrade(config, "head"),
                )


def _host_is_at_head(connection: Connection) -> bool:
    heads = context.get_context().get_current_heads()
    # The look has opened a transaction, in which our revisions would be the host's to commit.
    connection.rollback()
    return set(heads) == set(context.script.get_heads())


@contextmanager
def _host_environment_kept() -> Iterator[None]:
    """Give the host's environment back to Alembic, which keeps one only, in globals."""
    environment = context.get_context().environment_context
    try:
        yield
    finally:
        if environment is not None:
            environment.__enter__()
