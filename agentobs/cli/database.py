"""The database that a command works on: the environment's, or the embedded server's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from agentobs.embedded.default import with_database
from agentobs.errors import AgentobsError, ConfigurationError
from agentobs.migrations.failures import explain_connection_error, reason_of
from agentobs.sessions import create_engine, create_session_factory
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

_UNDEFINED_TABLE = "42P01"
_UNDEFINED_COLUMN = "42703"


@asynccontextmanager
async def open_session_factory() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open the session factory of one command, and close its connections at the end.

    Raises an error of the package where the server can't be reached or the tables are not there.
    """
    with with_database(read_settings()) as settings:
        engine = create_engine(settings)
        try:
            await _require_server(engine)
            yield create_session_factory(engine)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in {_UNDEFINED_TABLE, _UNDEFINED_COLUMN}:
                raise _not_migrated(settings.schema_name) from error
            raise AgentobsError(f"the database refused it: {reason_of(error)}") from error
        finally:
            await engine.dispose()


async def _require_server(engine: AsyncEngine) -> None:
    try:
        async with engine.connect():
            pass
    except (OSError, DBAPIError) as error:
        raise explain_connection_error(error, engine.url) from error


def _not_migrated(schema: str | None) -> ConfigurationError:
    place = f"schema {schema}" if schema else "the connection's schema"
    return ConfigurationError(
        f"the tables are not in {place}, or are older than this package: run "
        "`agentobs db upgrade`, or name their schema in AGENTOBS_SCHEMA",
        setting="AGENTOBS_SCHEMA",
    )
