"""Close hours: from then on, who writes to them marks them.

Who wrote before may have looked at the old watermark, and may commit at any time. So the
transactions are noted that have written to the table by the time that the watermark has moved: an
hour is folded when all of them have ended.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Boolean,
    Interval,
    Text,
    and_,
    cast,
    func,
    literal,
    select,
    text,
    true,
    update,
)

from agentobs.keys import uuid7_floor
from agentobs.rollups.hours import HOUR, floor_to
from agentobs.rollups.tables import INSTANT, STATE

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Select

    from agentobs.rollups.families import Family
    from agentobs.rollups.store import Store

GRACE = timedelta(minutes=5)
"""For so long after its end an hour stays open: a recorder's batch, or a clock, may be late."""

_WATERMARK_NAME = "agentobs_rollup_watermark"
# A sequence takes its value at once, for all snapshots, and keeps it if the transaction fails.
_ADVANCE = text(
    """
    SELECT setval(oid, greatest(:watermark, coalesce(pg_sequence_last_value(oid), 0)))
    FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relname = :sequence
    """
)
# By their locks, not by a snapshot's list, which ends with the last transaction that is complete.
# Transaction ids have 32 bits there, and are of the epoch that is nearest.
_NOTE_WRITERS = text(
    """
    WITH RECURSIVE tree AS (
        SELECT oid FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relname = :table
        UNION ALL
        SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid
    ),
    now AS (
        SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric AS next
    ),
    writer AS (
        SELECT DISTINCT transactionid::text::numeric AS short FROM pg_locks
        WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock'
          AND pid IS DISTINCT FROM pg_backend_pid() AND virtualtransaction IN (
            SELECT virtualtransaction FROM pg_locks
            WHERE locktype = 'relation' AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND relation IN (SELECT oid FROM tree)
              AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                           'AccessExclusiveLock'))
    ),
    long AS (
        SELECT next, short + div(next, 4294967296) * 4294967296 AS id FROM writer, now
    )
    SELECT coalesce(array_agg((CASE
        WHEN id > next + 2147483648 THEN id - 4294967296
        WHEN id < next - 2147483648 THEN id + 4294967296
        ELSE id END)::text), '{}')
    FROM long
    """
)
_DESCRIBE = text(
    """
    SELECT CASE WHEN pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)'
    ELSE format('backend %s (%s, %s, transaction open for %s s)', pid,
                coalesce(nullif(application_name, ''), 'no application name'),
                coalesce(state, backend_type),
                coalesce(round(extract(epoch FROM clock_timestamp() - xact_start))::text, '?'))
    END
    FROM unnest(CAST(:writers AS text[])) AS writer
    JOIN pg_locks ON locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock'
                 AND transactionid = CAST(CAST(writer AS xid8) AS xid)
    LEFT JOIN pg_stat_activity USING (pid)
    ORDER BY 1
    """
)
_SET_WRITERS = text("SELECT CAST(CAST(:writers AS text[]) AS xid8[])")


async def close_hours(store: Store, family: Family, now: datetime) -> None:
    """Close the hours that ended five minutes before `now`, or the server's now, and longer ago.

    The watermark is that of all tables; who may have written under the old one is noted for this
    family alone, so that none is replaced that another one waits for.
    """
    async with store.connection.begin():
        until = await closing_instant(store, now)
        await _move_watermark(store, until)
        await _note_writers(store, family, until)


async def closing_instant(store: Store, now: datetime) -> datetime:
    """Return the beginning of the hours that are to stay open, as of `now`."""
    # Hours to come are none to close, whatever a caller's clock says.
    latest = func.least(literal(now, INSTANT), func.clock_timestamp())
    instant = await store.execute(select(latest - literal(GRACE, Interval)))
    return floor_to(instant.scalar_one(), HOUR)


async def _move_watermark(store: Store, until: datetime) -> None:
    # One more than the bits of the least open key, for those behind them are not compared.
    watermark = (uuid7_floor(until).int >> 64) + 1
    values = {"watermark": watermark, "schema": store.schema, "sequence": _WATERMARK_NAME}
    await store.connection.execute(_ADVANCE, values)


async def _note_writers(store: Store, family: Family, until: datetime) -> None:
    """Note who may have written under the old watermark, in a snapshot after it moved."""
    values = {"schema": store.schema, "table": family.name}
    writers = await store.connection.scalar(_NOTE_WRITERS, values)
    noted = _SET_WRITERS.bindparams(writers=writers).columns(STATE.c.closing).scalar_subquery()
    lagging = and_(STATE.c.table_name == family.name, STATE.c.folded_to < until)
    await store.execute(update(STATE).where(lagging).values(closing_to=until, closing=noted))


async def are_writers_gone(store: Store, family: Family) -> bool:
    """Tell whether all have ended that may have written to the closing hours, in this snapshot.

    An id above the own one is of another cluster, whose dump this is.
    """
    return not (await store.execute(_select_writers(family).limit(1))).all()


async def writers_left(store: Store, family: Family) -> list[str]:
    """Describe the transactions that the closing hours wait for; never by what they run."""
    async with store.connection.begin():
        found = list((await store.execute(_select_writers(family))).scalars())
        return list(await store.connection.scalars(_DESCRIBE, {"writers": found}))


def _select_writers(family: Family) -> Select[Any]:
    writers = func.unnest(STATE.c.closing).table_valued("id", name="writers").render_derived()
    is_open = ~func.pg_visible_in_snapshot(writers.c.id, func.pg_current_snapshot(), type_=Boolean)
    is_of_here = writers.c.id < func.pg_current_xact_id()
    found = select(cast(writers.c.id, Text)).select_from(STATE.join(writers, true()))
    return found.where(STATE.c.table_name == family.name, is_open, is_of_here)
