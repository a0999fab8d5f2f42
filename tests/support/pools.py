"""Look at a pool from outside: what the server sees of it, and what goes over the wire."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from support.shell import connect

from agentobs import Database
from agentobs.errors import ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

PATIENCE_SECONDS = 10.0
# Anything that must not wait ends within this, also on a machine that is busy.
AT_ONCE_SECONDS = 2.0

_BACKEND_PID = text("SELECT pg_backend_pid()")
_OTHERS = """
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND pid <> pg_backend_pid()
"""


def changed(settings: DatabaseSettings, **values: Any) -> DatabaseSettings:
    return settings.model_copy(update=values)


async def eventually(condition: Callable[[], Awaitable[object]], *, pause: float = 0.01) -> None:
    """Wait until the condition holds; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s"
        await asyncio.sleep(pause)


async def pid_of(connection: AsyncConnection) -> int:
    """Ask for the backend of the connection, and end the transaction that asked."""
    pid = await connection.scalar(_BACKEND_PID)
    await connection.rollback()
    assert isinstance(pid, int)
    return pid


async def pid_of_next(database: Database) -> int:
    """Check a connection out and return it; tell which one it was."""
    async with database.connection() as connection:
        return await pid_of(connection)


@asynccontextmanager
async def all_in_use(database: Database, count: int) -> AsyncIterator[list[AsyncConnection]]:
    """Check connections out, all at once, and return them at the end."""
    connections = [database.connection() for _ in range(count)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(each) for each in connections))
        yield connections


class Onlooker:
    """Somebody who looks at the database from a connection of their own."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def scalar(self, statement: str, **values: Any) -> Any:
        return await self._connection.scalar(text(statement), values)

    async def execute(self, statement: str) -> None:
        await self._connection.execute(text(statement))

    async def pids(self, *, idle_seconds: float = 0) -> set[int]:
        """Return the other backends, or those that did nothing for so long."""
        idle = "AND now() - state_change >= make_interval(secs => :idle)"
        found = await self._connection.scalars(
            text(f"SELECT pid {_OTHERS} {idle}"), {"idle": idle_seconds}
        )
        return set(found)

    async def count(self) -> int:
        return len(await self.pids())

    async def is_alone(self) -> bool:
        return not await self.pids()

    async def states(self) -> set[str]:
        """Return what the other backends are doing."""
        return set(await self._connection.scalars(text(f"SELECT DISTINCT state {_OTHERS}")))

    async def names(self) -> list[str]:
        """Return the application names of the other backends."""
        return list(await self._connection.scalars(text(f"SELECT application_name {_OTHERS}")))

    async def running(self, statement: str) -> set[int]:
        """Return the backends that are executing the statement."""
        found = await self._connection.scalars(
            text(f"SELECT pid {_OTHERS} AND state = 'active' AND query = :query"),
            {"query": statement},
        )
        return set(found)

    async def terminate(self, *pids: int) -> None:
        """End backends from outside and wait until they are gone."""
        await self._connection.execute(
            text("SELECT pg_terminate_backend(pid, 5000) FROM unnest(cast(:pids AS int[])) AS pid"),
            {"pids": list(pids)},
        )


@asynccontextmanager
async def onlooker(settings: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with connect(settings) as connection:
        eye = Onlooker(connection)
        try:
            yield eye
        finally:
            # What a test that failed has left is not the next one's; a test may end this one, too.
            with suppress(ConnectionFailedError):
                await eye.terminate(*await eye.pids())


@asynccontextmanager
async def running(
    settings: DatabaseSettings, **values: Any
) -> AsyncIterator[tuple[Database, Onlooker]]:
    """Run a Database with the settings, some of them changed, and somebody who looks on."""
    async with onlooker(settings) as eye, Database(changed(settings, **values)) as db:
        yield db, eye
