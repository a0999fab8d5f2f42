"""Locks that keep nobody waiting: asked for briefly, in one order, again and again.

Who waits for an ACCESS EXCLUSIVE lock stalls everybody behind it for as long. So all locks of a
transaction share one short budget, are taken first of all, and are given up when it is spent.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import bindparam, text

from agentobs.errors import ConflictError, MaintenanceBlockedError, MaintenanceError
from agentobs.maintenance.catalog import read_state
from agentobs.maintenance.ddl import execute_ddl
from agentobs.maintenance.tables import EVENT_TABLES
from agentobs.migrations.lock import lock_key
from agentobs.migrations.scripts import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from agentobs.maintenance.catalog import TableState
    from agentobs.maintenance.workplace import Run

Mode = Literal["ACCESS SHARE", "SHARE UPDATE EXCLUSIVE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]

LOCK_BUDGET_SECONDS = 0.1
"""What all locks of one transaction may wait for together."""

_PAUSE_SECONDS = (0.1, 0.5)
# Others wait for the commit too: it need not reach the disk at once, for what a crash takes with it
# is done again by the next run. (One that drops a table is flushed all the same.)
_SET_TIMEOUT = text(
    "SELECT set_config('lock_timeout', :timeout, true), "
    "set_config('synchronous_commit', 'off', true)"
)
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")
_LOOK_ANEW = text("SELECT pg_stat_clear_snapshot()")
# What others may hold beside ours, by the names of pg_locks.
_READS = frozenset({"AccessShareLock", "RowShareLock"})
_HARMLESS: dict[Mode, frozenset[str]] = {
    "SHARE UPDATE EXCLUSIVE": _READS | {"RowExclusiveLock"},
    "SHARE ROW EXCLUSIVE": _READS,
}
# Never what they run: it may hold what users said.
_BLOCKERS = text(
    """
    SELECT relname, mode, CASE WHEN pid IS NULL
    THEN format('a prepared transaction (see pg_prepared_xacts, %s on %s)', mode, relname)
    ELSE format(
        'backend %s (%s, %s, transaction open for %s s, %s on %s)',
        pid, coalesce(nullif(application_name, ''), nullif(backend_type, 'client backend'),
                      'no application name'),
        coalesce(state, backend_type),
        coalesce(round(extract(epoch FROM clock_timestamp() - xact_start))::text, '?'),
        mode, relname) END
    FROM pg_locks
    JOIN pg_class ON pg_class.oid = relation AND relnamespace = to_regnamespace(:schema)
    LEFT JOIN pg_stat_activity USING (pid)
    WHERE granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relname IN :tables AND pid IS DISTINCT FROM pg_backend_pid()
    """
).bindparams(bindparam("tables", expanding=True))


@dataclass(frozen=True)
class TableLock:
    """A lock on one table, without its partitions."""

    table: str
    mode: Mode


async def with_locks(
    run: Run,
    locks: Sequence[TableLock],
    work: Callable[[], Awaitable[None]],
    *,
    prepare: Callable[[], Awaitable[None]] | None = None,
    blocked_by: Sequence[TableLock] | None = None,
) -> None:
    """Do `work` in one transaction that takes the locks before it, in the order given.

    `prepare` is done in it before the locks, once, and touches nothing that others see. The rest
    is tried again, after a pause with jitter, while others keep a lock; `blocked_by` are those
    that the work takes by itself, where blockers are looked for. Raises
    MaintenanceBlockedError when patience ends; nothing is done then.
    """

    async def locked_work() -> None:
        await _take(run, locks)
        await work()

    looked_at = locks if blocked_by is None else blocked_by
    async with run.connection.begin():
        if prepare is not None:
            await _patiently(run, looked_at, prepare)
        await _patiently(run, looked_at, locked_work)


async def _patiently(
    run: Run, locks: Sequence[TableLock], attempt: Callable[[], Awaitable[None]]
) -> None:
    """Make the attempt within a savepoint, whose end gives up the locks that it took."""
    deadline = time.monotonic() + run.patience_seconds
    while True:
        try:
            async with run.connection.begin_nested():
                await _wait_at_most(run, LOCK_BUDGET_SECONDS)
                await attempt()
        except ConflictError as error:
            blockers = await _blockers(run, locks)
            run.watcher.blocked(blockers)
            if time.monotonic() >= deadline:
                raise _blocked(blockers) from error
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 (jitter, no secret)
        else:
            return


async def look_around(run: Run) -> list[TableState]:
    """Read what there is, without waiting for long for who keeps readers out of DEFAULT."""
    states: list[TableState] = []

    async def work() -> None:
        states[:] = await read_state(run.connection, run.schema)

    locks: list[TableLock] = [TableLock(table.default, "ACCESS SHARE") for table in EVENT_TABLES]
    await with_locks(run, [], work, blocked_by=locks)
    return states


@asynccontextmanager
async def maintenance_lock(run: Run) -> AsyncIterator[bool]:
    """Hold the lock that keeps maintenance and migrations of a schema apart; tell if it is ours.

    It is the session's: transactions of the block come and go. Nobody waits for it, for what
    another run does need not be done again.
    """
    key, connection = lock_key(run.schema.name, VERSION_TABLE), run.connection
    ours = bool(await connection.scalar(_TRY_LOCK, {"key": key}))
    await connection.commit()
    try:
        yield ours
    finally:
        if ours and not (connection.closed or connection.invalidated):
            await connection.rollback()
            await connection.scalar(_UNLOCK, {"key": key})
            await connection.commit()


async def _take(run: Run, locks: Sequence[TableLock]) -> None:
    deadline = time.monotonic() + LOCK_BUDGET_SECONDS
    for lock in locks:
        await _wait_at_most(run, deadline - time.monotonic())
        table = run.schema.qualified(lock.table)
        await execute_ddl(run.connection, f"LOCK TABLE ONLY {table} IN {lock.mode} MODE")
    # What the work locks beyond these waits as briefly.
    await _wait_at_most(run, LOCK_BUDGET_SECONDS / 2)


async def _wait_at_most(run: Run, seconds: float) -> None:
    # 0 would be no limit at all.
    milliseconds = max(1, round(seconds * 1000))
    await run.connection.execute(_SET_TIMEOUT, {"timeout": f"{milliseconds}ms"})


async def _blockers(run: Run, locks: Sequence[TableLock]) -> list[str]:
    modes = {lock.table: lock.mode for lock in locks}
    # Within a transaction the server would tell again what it told the last time.
    await run.connection.execute(_LOOK_ANEW)
    found = await run.connection.execute(
        _BLOCKERS, {"schema": run.schema.quoted, "tables": list(modes)}
    )
    return sorted({words for table, mode, words in found if _is_in_the_way(mode, modes[table])})


def _is_in_the_way(held: str, wanted: Mode) -> bool:
    if wanted == "ACCESS SHARE":
        return held == "AccessExclusiveLock"
    return wanted == "ACCESS EXCLUSIVE" or held not in _HARMLESS[wanted]


def _blocked(blockers: Sequence[str]) -> MaintenanceError:
    return MaintenanceBlockedError(
        "others kept locks that maintenance needs for too long: "
        f"{'; '.join(blockers) or 'they are gone by now'}. End their transactions, or run again "
        "at a quieter time; what is done stays done",
        blockers=blockers,
    )
