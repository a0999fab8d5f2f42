"""What one pool does and may do: its limits on each connection, and its statistics."""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from asyncpg.exceptions import InterfaceError, PostgresError
from pydantic import BaseModel, ConfigDict
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.util import await_only

from agentobs.errors import DatabaseNotRunningError, EventLoopError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from agentobs.settings import DatabaseSettings

logger = logging.getLogger("agentobs.sessions")

# Enough for a p95 that one slow check-out does not move.
_REMEMBERED_ACQUISITIONS = 1000
_FEWEST_FOR_QUANTILES = 2
_CLOSE_SECONDS = 1.0
# A dead peer behind a firewall answers never: the whole time limit of statements would be lost.
_PING_SECONDS = 2.0
_USE = "agentobs"


class PoolStats(BaseModel):
    """What the pool is doing, and has done since it was made.

    `size` is the most connections that it opens; `idle` and `in_use` are open now; `waiting`
    are tasks without a connection yet. `recycled` of those `opened` are closed again, for their
    age, their use or their death. The p95 is that of the last 1,000 acquisitions, None before the
    first.
    """

    model_config = ConfigDict(frozen=True)

    size: int
    idle: int
    in_use: int
    waiting: int
    opened: int
    recycled: int
    acquisition_p95_ms: float | None


@dataclass(slots=True)
class ConnectionUse:
    """How a physical connection was used; kept in its record's `info`."""

    queries: int = 0
    idle_since: float | None = None


@dataclass(frozen=True)
class PoolLimits:
    """When a connection is tested, replaced or closed; durations in seconds."""

    min_size: int
    max_queries: int
    idle_lifetime: float
    ping_after: float

    @classmethod
    def of(cls, settings: DatabaseSettings) -> PoolLimits:
        """Take the limits from the settings."""
        return cls(
            settings.pool_min_size,
            settings.pool_max_queries,
            settings.pool_idle_lifetime,
            settings.pool_ping_after,
        )


@dataclass(eq=False)
class PoolWatch:
    """Keeps the limits of one pool and counts what it does; SQLAlchemy's events call it."""

    limits: PoolLimits
    place: str = "the database"
    records: WeakSet[ConnectionPoolEntry] = field(default_factory=WeakSet)
    acquisitions: deque[float] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED_ACQUISITIONS)
    )
    waiting: int = 0
    opened: int = 0
    owner: tuple[int, asyncio.AbstractEventLoop] | None = None
    is_closed: bool = False
    has_ended: bool = False
    all_returned: asyncio.Event | None = None

    def listen_to(self, engine: Engine, place: str) -> None:
        """Follow the pool of an engine to `place`, and those in its stead after a dispose."""
        self.place = place
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)

    def in_use(self) -> list[ConnectionPoolEntry]:
        """Return the connections that somebody has."""
        return [record for record in self.records if record.in_use and _is_open(record)]

    def idle(self) -> list[ConnectionPoolEntry]:
        """Return the open connections that nobody has, the last one used first."""
        idle = [record for record in self.records if not record.in_use and _is_open(record)]
        return sorted(idle, key=lambda record: _use_of(record).idle_since or 0, reverse=True)

    def stats(self, size: int) -> PoolStats:
        """Return the statistics of the pool that opens at most `size` connections."""
        idle, in_use = len(self.idle()), len(self.in_use())
        return PoolStats(
            size=size,
            idle=idle,
            in_use=in_use,
            waiting=self.waiting,
            opened=self.opened,
            recycled=self.opened - idle - in_use,
            acquisition_p95_ms=_p95_ms(self.acquisitions),
        )

    def require_usable(self) -> None:
        """Raise where a check-out would hang or break: after the stop, elsewhere, in a fork."""
        if self.is_closed:
            raise stopped()
        here = os.getpid(), asyncio.get_running_loop()
        if self.owner is None:
            self.owner = here
        elif self.owner != here:
            raise _elsewhere(same_process=self.owner[0] == here[0])

    async def wait_until_returned(self) -> None:
        """Wait until nobody has a connection, nor waits for one."""
        if not self._is_quiet():
            self.all_returned = asyncio.Event()
            await self.all_returned.wait()

    def tell_if_returned(self) -> None:
        """Wake who waits for the last connection, where that was it."""
        if self.all_returned is not None and self._is_quiet():
            self.all_returned.set()

    async def end(self) -> None:
        """Close every connection, in use or not, within seconds."""
        left = [*self.in_use(), *self.idle()]
        await asyncio.gather(*(_close(record) for record in left))

    async def close_idle(self) -> None:
        """Close what was idle for too long, as long as the smallest size stays open."""
        kept = max(self.limits.min_size - len(self.in_use()), 0)
        for record in self.idle()[kept:]:
            # Each close takes a while, in which the next one may have been checked out.
            if not record.in_use and _seconds_idle(record) >= self.limits.idle_lifetime:
                # From here on nobody is given this connection: a check-out opens another.
                record.invalidate(soft=True)
                await _close(record)

    def _connected(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        del connection
        self.opened += 1
        record.info[_USE] = ConnectionUse()
        self.records.add(record)

    def _checked_out(
        self,
        connection: DBAPIConnection,
        record: ConnectionPoolEntry,
        proxy: PoolProxiedConnection,
    ) -> None:
        del connection, proxy
        if self.has_ended:
            raise stopped()
        use = _use_of(record)
        if use.idle_since is None:
            return
        if self._is_worn(record):
            # SQLAlchemy closes this connection and opens another one in its place.
            raise DisconnectionError("idle for too long, or closed by the server")
        use.idle_since = None

    def _is_worn(self, record: ConnectionPoolEntry) -> bool:
        if not _is_open(record):
            return True
        idle = _seconds_idle(record)
        if idle >= self.limits.idle_lifetime:
            return True
        return idle >= self.limits.ping_after and not await_only(_answers(record))

    def _checked_in(self, connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and (use := record.info.get(_USE)) is not None:
            use.idle_since = time.monotonic()
            if use.queries >= self.limits.max_queries:
                # No I/O here, for it could be cancelled: the next check-out opens another one.
                record.invalidate(soft=True)
        self.tell_if_returned()

    def _is_quiet(self) -> bool:
        return not self.in_use() and self.waiting == 0


def count_query(proxy: PoolProxiedConnection) -> None:
    """Count a statement against the limit of its connection."""
    try:
        info = proxy.info
    except NotImplementedError:
        # The dialect's own first look at a server.
        return
    if (use := info.get(_USE)) is not None:
        use.queries += 1


def _use_of(record: ConnectionPoolEntry) -> ConnectionUse:
    use: ConnectionUse = record.info[_USE]
    return use


def _is_open(record: ConnectionPoolEntry) -> bool:
    # The driver knows without a round trip that the server has closed a connection.
    driver = record.driver_connection
    return driver is not None and not driver.is_closed()


async def _answers(record: ConnectionPoolEntry) -> bool:
    """Ping by a simple query: one round trip, and none that a pooler could tear apart."""
    driver: Any = record.driver_connection
    try:
        await driver.execute("SELECT 1", timeout=_PING_SECONDS)
    except (OSError, PostgresError, InterfaceError):
        # Where the network is silent, an orderly end would wait as long again.
        driver.terminate()
        return False
    return True


async def _close(record: ConnectionPoolEntry) -> None:
    driver = record.driver_connection
    if driver is None:
        return
    try:
        # Cancels what it runs, too.
        await driver.close(timeout=_CLOSE_SECONDS)
    except Exception as error:  # noqa: BLE001 (it is gone all the same)
        logger.info("a connection did not close in order: %s", type(error).__name__)
        driver.terminate()


def _seconds_idle(record: ConnectionPoolEntry) -> float:
    since = _use_of(record).idle_since
    return 0.0 if since is None else time.monotonic() - since


def _p95_ms(seconds: Sequence[float]) -> float | None:
    if len(seconds) < _FEWEST_FOR_QUANTILES:
        return 1000 * seconds[0] if seconds else None
    return 1000 * statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def stopped() -> DatabaseNotRunningError:
    """Make the error for a check-out after the stop."""
    return DatabaseNotRunningError("the Database was stopped: start it again, or make another one")


def _elsewhere(*, same_process: bool) -> EventLoopError:
    if same_process:
        return EventLoopError(
            "this pool belongs to another event loop: start a Database in each loop, or share one "
            "by get_database(), which keeps them apart"
        )
    return EventLoopError(
        "this pool was opened before the process forked, and its connections are the parent's: "
        "start a Database in each worker, after the fork"
    )
