"""The one connection of a migration run, and the schema that it works in."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSchema, DropSchema

from agentobs.errors import ConfigurationError, PoolerRefusedError
from agentobs.migrations import catalog
from agentobs.sessions.address import migration_address
from agentobs.sessions.engine import engine_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from agentobs.settings import DatabaseSettings

# Another parameter style would double each % in a name.
_DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_SHOW_SEARCH_PATH = text("SELECT current_setting('search_path')")
_SET_SEARCH_PATH = text("SELECT set_config('search_path', :path, false)")


def migration_engine(
    settings: DatabaseSettings, *, application_name: str = "agentobs migrations"
) -> AsyncEngine:
    """Create the engine of migrations, from AGENTOBS_MIGRATION_URL where that is set.

    It has no pool, no command timeout and no statement caches; the caller disposes of it. Raises
    PoolerRefusedError where the settings say that the only address is a pooler's.
    """
    if settings.pooler is not None and settings.migration_url is None:
        raise PoolerRefusedError(
            "AGENTOBS_POOLER says that the address is a transaction pooler's, where the lock that "
            "keeps two migration runs apart means nothing: set AGENTOBS_MIGRATION_URL to the "
            "server's own address"
        )
    return engine_for(
        migration_address(settings),
        # The schema comes by the search path: Alembic's DDL knows no translation of schemas.
        settings.model_copy(update={"schema_name": None, "application_name": None}),
        poolclass=NullPool,
        connect_args={
            "server_settings": {"application_name": application_name},
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
        },
    )


@asynccontextmanager
async def open_connection(
    settings: DatabaseSettings, *, application_name: str = "agentobs migrations"
) -> AsyncIterator[AsyncConnection]:
    """Open a connection for one run; raise ConnectionFailedError when that fails."""
    engine = migration_engine(settings, application_name=application_name)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


@contextmanager
def in_schema(connection: Connection, name: str | None) -> Iterator[None]:
    """Make `name` the schema of unqualified names; None keeps the connection's own."""
    if name is None:
        yield
        return
    dialect = connection.dialect
    path, default = connection.scalar(_SHOW_SEARCH_PATH), dialect.default_schema_name
    _set_search_path(connection, quoted(name))
    dialect.default_schema_name = name
    try:
        yield
    finally:
        dialect.default_schema_name = default
        if not (connection.closed or connection.invalidated):
            connection.rollback()
            _set_search_path(connection, path)


@contextmanager
def autocommit(connection: Connection) -> Iterator[None]:
    """Commit each statement of the block by itself, as VACUUM and CONCURRENTLY want it."""
    before = connection.get_isolation_level()
    connection.rollback()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        yield
    finally:
        if not (connection.closed or connection.invalidated):
            connection.rollback()
            connection.execution_options(isolation_level=before)


def quoted(name: str) -> str:
    """Quote an identifier as PostgreSQL does."""
    return _DIALECT.identifier_preparer.quote_identifier(name)


def named(name: str) -> str:
    """Write an identifier for people to read: quoted only where SQL wants it so."""
    return _DIALECT.identifier_preparer.quote(name)


def default_schema(connection: Connection) -> str:
    """Return the connection's own schema; raise ConfigurationError where it has none."""
    schema = catalog.current_schema(connection)
    connection.commit()
    if schema is None:
        raise ConfigurationError(
            "the connection's search_path names no schema that exists: create one, "
            "or name one in AGENTOBS_SCHEMA",
            setting="AGENTOBS_SCHEMA",
        )
    return schema


def create_schema(connection: Connection, name: str) -> bool:
    """Make the schema where it is missing; return whether this call made it."""
    # IF NOT EXISTS alone asks for the right to create even where the schema is there.
    missing = not catalog.schema_exists(connection, name)
    if missing:
        connection.execute(CreateSchema(name))
    connection.commit()
    return missing


def drop_schema(connection: Connection, name: str) -> None:
    """Drop the schema, which must be empty."""
    connection.execute(DropSchema(name))
    connection.commit()


def _set_search_path(connection: Connection, path: str | None) -> None:
    connection.execute(_SET_SEARCH_PATH, {"path": path})
    connection.commit()
