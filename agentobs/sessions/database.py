"""The database of a service: one object that is started, asked for sessions, and stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from agentobs.errors import ConfigurationError, DatabaseNotRunningError
from agentobs.sessions.health import Health, check_health
from agentobs.sessions.open_pools import OpenPools
from agentobs.settings import DatabaseSettings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from agentobs.sessions.pool_watch import PoolStats

# Names that SQLAlchemy's create_engine() has, too.
_ENGINE_OPTIONS = frozenset({"pool_size", "pool_timeout"})
# For connections that are just being opened when the start fails.
_SECONDS_TO_GIVE_UP = 1.0


class Database:
    """The pool of a service, from `start` to `stop`, and the sessions on it.

    ::

        async with Database() as db:
            async with db.begin() as session:      # commits at the end
                session.add(...)

    It belongs to the event loop in which it was started; used in another one, or after a fork, it
    raises EventLoopError. After `stop` it can be started again, in any loop. `options` go to
    `create_engine`. Raises DatabaseNotRunningError before the start and after the stop.
    """

    def __init__(self, settings: DatabaseSettings | None = None, **options: Any) -> None:
        self._settings = read_settings() if settings is None else settings
        _require_settings(self._settings, options)
        if "poolclass" in options or "pool" in options:
            raise ConfigurationError(
                "a Database has a pool of its own: give pool_size and its like, or use "
                "create_engine() with another pool"
            )
        self._options = options
        self._running: OpenPools | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def settings(self) -> DatabaseSettings:
        """The settings that it was made with."""
        return self._settings

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._running is not None

    @property
    def engine(self) -> AsyncEngine:
        """The engine of its pool, for what takes one; `stop` disposes of it."""
        return self._require_running().engine

    async def start(self) -> None:
        """Open the smallest number of connections; raise ConnectionFailedError if that fails.

        A second start does nothing.
        """
        if self._running is not None:
            self._running.require_usable()
            await self._running.until_warm()
            self._require_running()
            return
        running = self._running = OpenPools(self._settings, self._options)
        try:
            await running.warm_up()
        except BaseException:
            await self._end(running, _SECONDS_TO_GIVE_UP)
            raise

    async def stop(self, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 (a bound, not a cancellation)
        """Wait up to `timeout` seconds for what is in use, then close every connection.

        No connection is given out any more meanwhile. What is still in use at the end is ended,
        and counted in a warning.
        """
        if self._running is not None:
            self._running.require_usable()
            await self._end(self._running, timeout)

    async def _end(self, running: OpenPools, timeout_seconds: float) -> None:
        self._running = None
        running.give_nothing_out()
        # Who is cancelled in here does not wait for the end, but it comes all the same. The event
        # loop itself holds tasks weakly.
        self._ending = asyncio.create_task(running.close(timeout_seconds))
        await asyncio.shield(self._ending)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def session(self) -> AsyncSession:
        """Return a session: `async with db.session() as session`. It commits when it is told to."""
        return self._require_running().sessions()

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a session that commits at the end of its block, or rolls back on an error."""
        return self._require_running().sessions.begin()

    def connection(self) -> AsyncConnection:
        """Return a connection for SQLAlchemy Core: `async with db.connection() as connection`."""
        return self._require_running().engine.connect()

    def read_session(self, *, autocommit: bool = False) -> AsyncSession:
        """Return a session that can't write, on the replica where `read_url` names one.

        It is a transaction, or with `autocommit` each of its statements is one: a third of the
        round trips, without a common snapshot. Its pool is opened at the first use.
        """
        return self._require_running().read_sessions(autocommit=autocommit)()

    async def health(self, *, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 (as above)
        """Ask the database whether it is usable; never raises."""
        if self._running is None:
            return Health(ok=False, latency_ms=0.0, reason=str(_not_running()))
        return await check_health(self._running.autocommit, timeout)

    def pool_stats(self) -> PoolStats:
        """Return what the pool is doing; that of read sessions is not in it."""
        return self._require_running().stats()

    def read_pool_stats(self) -> PoolStats:
        """Return what the pool of the read sessions is doing."""
        return self._require_running().read_stats()

    def _require_running(self) -> OpenPools:
        if self._running is None:
            raise _not_running()
        return self._running


def _require_settings(settings: object, options: Mapping[str, Any]) -> None:
    misplaced = sorted(options.keys() & DatabaseSettings.model_fields.keys() - _ENGINE_OPTIONS)
    if misplaced or not isinstance(settings, DatabaseSettings):
        name = misplaced[0] if misplaced else "database_url"
        raise ConfigurationError(
            f"a Database takes its settings as an object: Database(DatabaseSettings({name}=…))"
        )


def _not_running() -> DatabaseNotRunningError:
    return DatabaseNotRunningError(
        "the Database is not running: use it within `async with db:`, or between `await "
        "db.start()` and `await db.stop()`"
    )
