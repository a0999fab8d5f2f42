"""Who is in the way: transactions that are open for long, locks on our tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from sqlalchemy import Row

    from agentobs.doctor.context import Context

# Archives and migrations of large tables take their time.
_OUR_OWN = frozenset({"agentobs maintenance", "agentobs migrations", "agentobs online"})
# Never what they run: it may hold what users said. Of another role's backends the server tells
# little to who may not read all statistics.
_TRANSACTIONS = text(
    """
    SELECT pid, coalesce(nullif(application_name, ''), 'no application name') AS application,
           state, extract(epoch FROM clock_timestamp() - xact_start) AS seconds,
           pg_has_role(usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER') AS may_end
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND pid <> pg_backend_pid()
      AND clock_timestamp() - xact_start > CASE
          WHEN state = 'active' THEN CAST(:active AS interval) ELSE CAST(:idle AS interval) END
    ORDER BY xact_start
    LIMIT 10
    """
)
_HIDDEN = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type IS NULL
    """
)
_PREPARED = text(
    """
    SELECT gid, format('ROLLBACK PREPARED %L;', gid) AS fix,
           extract(epoch FROM clock_timestamp() - prepared) AS seconds
    FROM pg_prepared_xacts
    WHERE database = current_database() AND clock_timestamp() - prepared > CAST(:age AS interval)
    ORDER BY prepared
    LIMIT 10
    """
)
# Those who keep others out, and those whom somebody has waited for who waits himself for nobody.
_LOCKS = text(
    """
    WITH lock AS (
        SELECT pid, mode, granted, relation, waitstart,
               CASE WHEN granted THEN array_position(ARRAY[
                   'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'
               ], mode) END AS strength
        FROM pg_locks
        WHERE locktype = 'relation' AND relation = ANY (CAST(:oids AS oid[]))
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND pid <> pg_backend_pid()
    ),
    waiting AS (
        SELECT pid, pg_blocking_pids(pid) AS blockers FROM lock
        WHERE NOT granted AND clock_timestamp() - waitstart > CAST(:age AS interval)
    )
    SELECT pid, coalesce(nullif(application_name, ''), 'no application name') AS application,
           coalesce(state, backend_type, 'of another role') AS state,
           extract(epoch FROM clock_timestamp() - xact_start) AS seconds,
           (array_agg(mode ORDER BY strength DESC NULLS LAST))[1] AS mode,
           (array_agg(relname ORDER BY strength DESC NULLS LAST, relname))[1] AS relation,
           max(strength) = 4 AS keeps_readers_out,
           coalesce(backend_type, 'client backend') <> 'client backend' AS is_of_the_server,
           bool_and(pg_has_role(usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER'))
               AS may_end,
           (SELECT count(*) FROM waiting WHERE lock.pid = ANY (blockers)) AS waiting
    FROM lock
    JOIN pg_class ON pg_class.oid = relation
    LEFT JOIN pg_stat_activity USING (pid)
    WHERE granted AND pid NOT IN (SELECT pid FROM waiting)
    GROUP BY lock.pid, application_name, state, backend_type, xact_start
    HAVING max(strength) IS NOT NULL
           AND coalesce(clock_timestamp() - xact_start > CAST(:age AS interval), true)
        OR lock.pid = ANY (SELECT unnest(blockers) FROM waiting)
    ORDER BY waiting DESC, pid
    LIMIT 10
    """
)


async def check_transactions(context: Context) -> list[Finding]:
    """Find transactions that are open for so long that vacuum and rollups wait for them."""
    limits = context.thresholds
    found = await context.rows(
        _TRANSACTIONS, active=limits.transaction_age, idle=limits.idle_transaction_age
    )
    prepared = await context.rows(_PREPARED, age=limits.transaction_age)
    return [
        *map(_transaction, found),
        *map(_prepared, prepared),
        *await _hidden(context),
    ]


def _transaction(row: Row[Any]) -> Finding:
    if row.application in _OUR_OWN:
        words = f"{row.application} is at work in a transaction of {row.seconds:,.0f} s: let it end"
        return _at_work("transactions", row.pid, words)
    words = (
        f"backend {row.pid} ({row.application}, {row.state}) has a transaction open for "
        f"{row.seconds:,.0f} s: dead rows stay, and hours that it may have written to are not "
        "folded"
    )
    return _in_the_way("transactions", row, words)


def _prepared(row: Row[Any]) -> Finding:
    words = (
        f"a prepared transaction waits for its end for {row.seconds:,.0f} s, with its locks: "
        "nobody else will end it"
    )
    return Finding(
        check="transactions", severity=Severity.WARNING, subject=row.gid, words=words, fix=row.fix
    )


async def _hidden(context: Context) -> list[Finding]:
    ((hidden,),) = await context.rows(_HIDDEN)
    if not hidden:
        return []
    role = context.server.role
    return [
        Finding(
            check="transactions",
            severity=Severity.NOTICE,
            subject=role,
            words=f"{hidden} backends of other roles can't be looked at, and may be in the way",
            fix=f"GRANT pg_read_all_stats TO {quoted(role)};",
        )
    ]


async def check_locks(context: Context) -> list[Finding]:
    """Find locks that keep others from our tables."""
    found = await context.rows(_LOCKS, oids=context.oids, age=context.thresholds.lock_age)
    return [_lock(row) for row in found]


def _lock(row: Row[Any]) -> Finding:
    since = "" if row.seconds is None else f", in a transaction of {row.seconds:,.0f} s"
    whom = "everybody" if row.keeps_readers_out else "writers"
    words = f"backend {row.pid} ({row.application}, {row.state}) has {row.mode} on {row.relation}"
    # A weaker lock keeps only those out who want all of the table, and behind them everybody.
    keeps_out = f": it keeps {whom} out" if row.keeps_readers_out is not None else ""
    waiting = f"; {row.waiting} wait for it" if row.waiting else ""
    words = f"{words}{since}{keeps_out}{waiting}"
    if row.is_of_the_server or row.application in _OUR_OWN:
        # Ended, it would have to begin again: a vacuum too old to be put off, or a migration.
        return _at_work("locks", row.pid, f"{words}: let it end")
    return _in_the_way("locks", row, words)


def _at_work(check: str, pid: int, words: str) -> Finding:
    return Finding(check=check, severity=Severity.NOTICE, subject=f"backend {pid}", words=words)


def _in_the_way(check: str, row: Row[Any], words: str) -> Finding:
    # Of a backend without a role, or one that is gone by now, nothing is known.
    whose = ". To end it takes its role, or pg_signal_backend" if row.may_end is False else ""
    return Finding(
        check=check,
        severity=Severity.WARNING,
        subject=f"backend {row.pid}",
        words=f"{words}{whose}",
        fix=f"SELECT pg_terminate_backend({row.pid});",
    )
