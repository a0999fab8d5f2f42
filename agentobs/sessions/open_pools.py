"""The pools of a Database between its start and its stop, and the task that keeps them small."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from agentobs.sessions.engine import (
    create_engine,
    create_read_engine,
    create_session_factory,
    in_autocommit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from agentobs.sessions.pool import WatchedPool
    from agentobs.sessions.pool_watch import PoolStats, PoolWatch
    from agentobs.settings import DatabaseSettings

logger = logging.getLogger("agentobs.sessions")

# The idle connections are looked at this often within their lifetime.
_LOOKS_PER_LIFETIME = 10
_SHORTEST_PAUSE_SECONDS = 0.05


class OpenPools:
    """The pool of a service, that of its read sessions when they are used, and their caretaker."""

    def __init__(self, settings: DatabaseSettings, options: Mapping[str, Any]) -> None:
        self._settings = settings
        self._options = options
        self.engine = create_engine(settings, **options)
        self.sessions = create_session_factory(self.engine)
        self.autocommit = in_autocommit(self.engine, settings)
        self._engines = [self.engine]
        # From here on they belong to this event loop, opened or not.
        self.require_usable()
        self._warmed_up = asyncio.Event()
        self._caretaker = asyncio.create_task(self._close_idle_for_ever())

    @cached_property
    def _read_engine(self) -> AsyncEngine:
        engine = create_read_engine(self._settings, **self._options)
        _watch(engine).require_usable()
        self._engines.append(engine)
        return engine

    @cached_property
    def _read_transactions(self) -> async_sessionmaker[AsyncSession]:
        return create_session_factory(self._read_engine)

    @cached_property
    def _read_statements(self) -> async_sessionmaker[AsyncSession]:
        return create_session_factory(in_autocommit(self._read_engine, self._settings))

    def read_sessions(self, *, autocommit: bool) -> async_sessionmaker[AsyncSession]:
        """Return the factory of read sessions; the first call makes their pool."""
        self.require_usable()
        return self._read_statements if autocommit else self._read_transactions

    async def warm_up(self) -> None:
        """Open the smallest number of connections, all at once; raise the first failure."""
        try:
            await self._open_smallest_number()
        finally:
            self._warmed_up.set()

    async def until_warm(self) -> None:
        """Wait for the end of the warm-up that another task has begun."""
        await self._warmed_up.wait()

    async def _open_smallest_number(self) -> None:
        if (count := min(self._settings.pool_min_size, _size(self.engine))) == 0:
            return
        all_open = asyncio.Barrier(count)

        async def open_one() -> None:
            async with self.engine.connect():
                # A connection that came back earlier would be given to the next one.
                await all_open.wait()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(open_one())
        except ExceptionGroup as failures:
            raise failures.exceptions[0]  # noqa: B904 (it has its cause)

    def stats(self) -> PoolStats:
        """Return the statistics of the service's pool."""
        return _watch(self.engine).stats(_size(self.engine))

    def read_stats(self) -> PoolStats:
        """Return the statistics of the read sessions' pool."""
        return _watch(self._read_engine).stats(_size(self._read_engine))

    def require_usable(self) -> None:
        """Raise EventLoopError where this is another event loop or process."""
        _watch(self.engine).require_usable()

    def give_nothing_out(self) -> None:
        """Refuse every check-out from here on."""
        self._caretaker.cancel()
        for engine in self._engines:
            _watch(engine).is_closed = True

    async def close(self, timeout_seconds: float) -> None:
        """Wait for what is in use, then close all connections."""
        watches = [_watch(engine) for engine in self._engines]
        try:
            async with asyncio.timeout(timeout_seconds):
                for watch in watches:
                    await watch.wait_until_returned()
        except TimeoutError:
            logger.warning(
                "%d connections were still in use %.1f s after the stop, and are ended now; "
                "%d tasks that wait for one get none",
                sum(len(watch.in_use()) for watch in watches),
                timeout_seconds,
                sum(watch.waiting for watch in watches),
            )
        finally:
            for engine in self._engines:
                cast("WatchedPool", engine.pool).end()
            await asyncio.gather(*(watch.end() for watch in watches))
            for engine in self._engines:
                await engine.dispose()

    async def _close_idle_for_ever(self) -> None:
        pause = self._settings.pool_idle_lifetime / _LOOKS_PER_LIFETIME
        while True:
            await asyncio.sleep(max(pause, _SHORTEST_PAUSE_SECONDS))
            for engine in self._engines:
                try:
                    await _watch(engine).close_idle()
                except Exception as error:  # noqa: BLE001 (the next round tries again)
                    logger.warning("an idle connection did not close: %s", type(error).__name__)


def _size(engine: AsyncEngine) -> int:
    return cast("WatchedPool", engine.pool).size()


def _watch(engine: AsyncEngine) -> PoolWatch:
    return cast("WatchedPool", engine.pool).watch
