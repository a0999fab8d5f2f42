"""One migration run at a time: an advisory lock that is polled, never waited for.

A session that blocks inside pg_advisory_lock() holds a snapshot, and CREATE INDEX CONCURRENTLY
of the run that has the lock waits for that snapshot: both wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.util import await_only

from agentobs.errors import MigrationLockError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

logger = logging.getLogger("agentobs.migrations")

# Long enough that eight waiters cost the server nothing, short enough that none is kept waiting.
_POLL_SECONDS = (0.05, 0.15)

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")
# A key of 64 bits stands in pg_locks as two halves.
_HOLDERS = text(
    """
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32) | objid::bigint = :key
    """
)


def lock_key(schema: str, version_table: str) -> int:
    """Return the lock's key: the same for every run on the same version table."""
    digest = sha256(f"{schema}.{version_table}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


@contextmanager
def migration_lock(connection: Connection, key: int, *, wait_seconds: float) -> Iterator[None]:
    """Hold the advisory lock for the block.

    No transaction stays open between two polls, nor when the block begins. Raises
    MigrationLockError when `wait_seconds` have passed.
    """
    deadline = time.monotonic() + wait_seconds
    announced = False
    while not _scalar(connection, _TRY_LOCK, key):
        if time.monotonic() >= deadline:
            raise _still_locked(connection, key, wait_seconds)
        if not announced:
            logger.info("another migration run is at work: waiting up to %.0f s", wait_seconds)
            announced = True
        pause(connection, random.uniform(*_POLL_SECONDS))  # noqa: S311 (jitter, no secret)
    try:
        yield
    finally:
        _release(connection, key)


def _release(connection: Connection, key: int) -> None:
    # A connection that broke took its lock with it.
    if not (connection.closed or connection.invalidated):
        connection.rollback()
        _scalar(connection, _UNLOCK, key)


def _still_locked(connection: Connection, key: int, waited: float) -> MigrationLockError:
    holders = [int(pid) for pid in connection.scalars(_HOLDERS, {"key": key})]
    connection.commit()
    return MigrationLockError(
        f"another migration run kept its lock for more than {waited:.0f} s "
        f"(backend {', '.join(map(str, holders)) or 'gone by now'}): wait for it to end, or end it "
        "with SELECT pg_terminate_backend(pid), then run again",
        holders=holders,
    )


def _scalar(connection: Connection, statement: object, key: int) -> bool:
    answer = bool(connection.scalar(statement, {"key": key}))  # type: ignore[call-overload]
    connection.commit()
    return answer


def pause(connection: Connection, seconds: float) -> None:
    """Wait, with the event loop free where there is one."""
    """Wait, with the event loop free where there is one."""
    if connection.dialect.is_async:
        # Within run_sync: the event loop of a service that migrates at start goes on.
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
