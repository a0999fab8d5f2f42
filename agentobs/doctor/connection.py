"""A connection that reads: nothing is written through it, and nothing waits for long."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, event, text

from agentobs.errors import PoolerRefusedError
from agentobs.migrations.pooler import require_direct_connection
from agentobs.sessions.engine import engine_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from agentobs.sessions.address import Address
    from agentobs.settings import DatabaseSettings

# A server that does not answer is a finding, and who asks for it does not want to wait.
_MOST_SECONDS_TO_CONNECT = 10.0
# The server keeps the time of a statement. This is for a network that has gone silent.
_SECONDS_BEYOND = 5.0
# Months are those of UTC, and to compile a look at the catalog takes longer than the look.
_SETTLE = text(
    """
    SELECT set_config('statement_timeout', :statement, :local),
           set_config('lock_timeout', :lock, :local),
           set_config('timezone', 'UTC', :local),
           set_config('jit', 'off', :local)
    """
)
_READ_ONLY = text("SELECT set_config('default_transaction_read_only', 'on', false)")
_AUTOCOMMIT = "AUTOCOMMIT"


@asynccontextmanager
async def open_connection(
    address: Address, settings: DatabaseSettings, limit: timedelta
) -> AsyncIterator[AsyncConnection]:
    """Open a connection whose transactions only read; raise ConnectionFailedError.

    Each statement may take `limit`, and wait for locks for half of it. It works through a
    transaction pooler: nothing is prepared, and nothing outlives a transaction.
    """
    engine = _engine(address, settings, limit)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def is_pooled(connection: AsyncConnection) -> bool:
    """Tell whether it goes through a transaction pooler."""
    try:
        await connection.run_sync(require_direct_connection)
    except PoolerRefusedError:
        return True
    return False


async def settle_for_good(connection: AsyncConnection, limit: timedelta) -> None:
    """Let each statement be a transaction, which takes half of the round trips.

    For a connection of one's own: through a pooler the next client would get what is set here.
    """
    async with connection.begin():
        await connection.execute(_SETTLE, _settings(limit, local=False))
        await connection.execute(_READ_ONLY)
    await connection.execution_options(isolation_level=_AUTOCOMMIT)


def _engine(address: Address, settings: DatabaseSettings, limit: timedelta) -> AsyncEngine:
    engine = engine_for(
        address,
        settings.model_copy(update={"schema_name": None, "application_name": None}),
        poolclass=NullPool,
        connect_args={
            "server_settings": {"application_name": "agentobs doctor"},
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "command_timeout": limit.total_seconds() + _SECONDS_BEYOND,
            "timeout": _connect_timeout(address),
        },
        execution_options={
            "postgresql_readonly": True,
            # A standby knows none that is stricter.
            "isolation_level": "READ COMMITTED",
        },
    )

    def settle(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != _AUTOCOMMIT:
            connection.execute(_SETTLE, _settings(limit, local=True))

    event.listen(engine.sync_engine, "begin", settle)
    return engine


def _connect_timeout(address: Address) -> float:
    given: float | None = address.arguments.get("timeout")
    return min(given or _MOST_SECONDS_TO_CONNECT, _MOST_SECONDS_TO_CONNECT)


def _settings(limit: timedelta, *, local: bool) -> dict[str, str | bool]:
    # 0 would be no limit at all.
    whole = max(2, round(limit.total_seconds() * 1000))
    return {"statement": f"{whole}ms", "lock": f"{whole // 2}ms", "local": local}
