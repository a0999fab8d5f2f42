"""The pool of an engine: SQLAlchemy's own, watched, and with errors that tell the fix."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.pool.base import _ConnectionRecord

from agentobs.errors import PoolTimeoutError
from agentobs.sessions.both_errors import as_both
from agentobs.sessions.failures import connection_failed, without_data
from agentobs.sessions.pool_watch import stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from agentobs.sessions.pool_watch import PoolWatch


class WatchedPool(AsyncAdaptedQueuePool):
    """A queue of connections that tells `watch` of each acquisition, and asks it for leave."""

    # SQLAlchemy names a pool's logger by this: its messages stay where they are looked for.
    __module__ = "sqlalchemy.pool.agentobs"

    # SQLAlchemy looks at these names to learn which options of an engine are the pool's.
    def __init__(self, creator: Callable[..., Any], watch: PoolWatch, **options: Any) -> None:
        super().__init__(creator, **options)
        self.watch = watch
        self._queued = 0

    def connect(self) -> PoolProxiedConnection:
        """Check a connection out; raise PoolTimeoutError after `pool_timeout` without one."""
        watch = self.watch
        watch.require_usable()
        began = time.perf_counter()
        watch.waiting += 1
        try:
            connection = super().connect()
        except SQLAlchemyTimeoutError as error:
            raise as_both(self._timed_out(), error) from None
        except (PostgresError, InterfaceError) as error:
            # It broke while SQLAlchemy was setting it up.
            raise connection_failed(error, watch.place) from without_data(error)
        finally:
            watch.waiting -= 1
            watch.tell_if_returned()
        watch.acquisitions.append(time.perf_counter() - began)
        return connection

    def _do_get(self) -> ConnectionPoolEntry:
        self._queued += 1
        try:
            record = super()._do_get()
        finally:
            self._queued -= 1
        if self.watch.has_ended:
            # The next one in the queue learns of it by the same record.
            super()._do_return_conn(record)
            raise stopped()
        return record

    def end(self) -> None:
        """Give no connection to anyone any more, also not to those who wait for one."""
        self.watch.has_ended = True
        if self._queued:
            super()._do_return_conn(_ConnectionRecord(self, connect=False))

    @property
    def is_exhausted(self) -> bool:
        """Tell whether somebody waits for a connection because all of them are in use."""
        return self._queued > 0

    def _create_connection(self) -> ConnectionPoolEntry:
        # Not connected yet: SQLAlchemy does that next, and a record that fails to connect is given
        # back, where a failure here would be heard by nobody in the queue.
        return _ConnectionRecord(self, connect=False)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.dbapi_connection is None and self._queued == 0:
            # On top of the queue it would be tried before those that are open.
            self._dec_overflow()
        else:
            super()._do_return_conn(record)

    def recreate(self) -> WatchedPool:
        """Make the pool that takes the place of this one after a dispose."""
        # Its connections are gone: whoever comes first may own the next ones.
        self.watch.owner = None
        return type(self)(
            self._creator,
            watch=self.watch,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            recycle=self._recycle,
            echo=self.echo,
            pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return,
            logging_name=self._orig_logging_name,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def _timed_out(self) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"all {self.size()} connections were in use for {self.timeout():g} s: give them back "
            "earlier (close each session, keep slow work out of transactions), or raise "
            "AGENTOBS_POOL_SIZE"
        )
