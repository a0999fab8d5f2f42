"""What there is: partitions by their real bounds, the rows in DEFAULT, what was done before."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import bindparam, text

from agentobs.errors import MaintenanceError
from agentobs.maintenance.months import SLACK, Month
from agentobs.maintenance.statements import statement_with
from agentobs.maintenance.tables import (
    DETACHED,
    EVENT_TABLES,
    RESTORATION,
    REWRITE,
    STATES,
    EventTable,
    MonthPartition,
    Schema,
)

if TYPE_CHECKING:
    from datetime import date

    from sqlalchemy.ext.asyncio import AsyncConnection

# MINVALUE and MAXVALUE have no quotes.
_RANGE = re.compile(
    r"FOR VALUES FROM \('?([0-9a-f-]{36}|MINVALUE)'?\) TO \('?([0-9a-f-]{36}|MAXVALUE)'?\)"
)
_ENDLESS = {"MINVALUE": UUID(int=0), "MAXVALUE": UUID(int=2**128 - 1)}

_PARTITIONS = text(
    """
    SELECT root.relname, part.relname, pg_get_expr(part.relpartbound, part.oid),
           part.relkind = 'r', nullif(part.reltuples, -1)::bigint,
           -- Each index and its file is looked at for it.
           CASE WHEN :sized THEN pg_total_relation_size(part.oid) ELSE 0 END
    FROM pg_inherits
    JOIN pg_class root ON root.oid = inhparent
    JOIN pg_class part ON part.oid = inhrelid
    WHERE root.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
      AND root.relname IN :tables AND root.relkind = 'p'
    ORDER BY 1, 2
    """
).bindparams(bindparam("tables", expanding=True))
_STATES = """
    SELECT table_name, month, expired_at IS NOT NULL, restored_at IS NOT NULL,
           payload_expired_at IS NOT NULL, archive
    FROM {states}
    ORDER BY table_name, month
"""
# Those that have a name of ours without being a partition, and those that a rewriting captures.
_BESIDE = text(
    r"""
    SELECT relname, coalesce(obj_description(oid, 'pg_class') = :detached, false) AND relkind = 'r'
    FROM pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
      AND NOT relispartition AND relname ~ '_y\d{4}m\d{2}(_rewrite|_restoration)?$'
    """
)
_CAPTURED = text(
    """
    SELECT relname FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
      AND tgname = 'agentobs_capture'
    """
)
# To detach a partition the server looks for rows of other tables that point into it.
_REFERENCES = text(
    """
    SELECT root.relname, format('constraint %I on table %s', conname, conrelid::regclass)
    FROM pg_constraint JOIN pg_class root ON root.oid = confrelid
    WHERE root.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
      AND root.relname IN :tables AND contype = 'f' AND conparentid = 0
    ORDER BY 1, 2
    """
).bindparams(bindparam("tables", expanding=True))
# The instant of a key is in its first 48 bits, as milliseconds; every UUID has some. Python knows
# no year beyond 9999.
_STRAYS = """
    SELECT CASE WHEN key_month < '9999-12-01 00:00:00+00' THEN key_month END,
           {instant} >= key_month - :slack
                  AND {instant} < key_month + interval '1 month' + :slack AS fits, count(*)
    FROM (
        SELECT {instant}, date_trunc('month', to_timestamp(
            ('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0
        ), 'UTC') AS key_month
        FROM ONLY {table}
        -- NULL is no limit.
        LIMIT CAST(:most AS bigint)
    ) AS strays
    GROUP BY 1, 2
    ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Partition:
    """A partition; `month` is None for DEFAULT, and for what the host made in another way."""

    name: str
    month: Month | None
    is_default: bool
    rows: int | None
    """As the server estimates them; None where it never counted."""
    size: int
    """In bytes, with indexes; 0 where it was not asked for."""
    bounds: tuple[UUID, UUID] | None = None
    """The keys that it takes, from the first to below the second."""

    def overlaps(self, month: Month) -> bool:
        """Tell whether it takes keys of a month."""
        if self.bounds is None:
            return False
        lower, upper = self.bounds
        return lower < month.upper_id and month.lower_id < upper


@dataclass(frozen=True)
class Strays:
    """Rows in DEFAULT whose keys lie in one month; `fits` where their instants do, too.

    `month` is None where no partition can be made for them.
    """

    month: Month | None
    fits: bool
    rows: int


@dataclass(frozen=True)
class MonthState:
    """What maintenance did to a month of a table."""

    month: Month
    is_expired: bool
    is_restored: bool
    is_payload_expired: bool
    archive: str | None
    """Where its rows were archived when it expired."""


@dataclass(frozen=True)
class TableState:
    """What there is of one table."""

    table: EventTable
    partitions: tuple[Partition, ...]
    strays: tuple[Strays, ...]
    states: tuple[MonthState, ...]
    rewrites: tuple[Month, ...] = ()
    """The months of which a rewriting was broken off."""
    restorations: tuple[Month, ...] = ()
    """The months of which a restoration was broken off."""
    detached: tuple[Month, ...] = ()
    """The months that an expiry has detached, and not yet dropped."""
    in_the_way: tuple[Month, ...] = ()
    """The months whose name has a table that nobody knows of."""
    references: tuple[str, ...] = ()
    """The foreign keys of a host's tables on this one."""

    @cached_property
    def months(self) -> dict[Month, Partition]:
        """The partitions that are months, oldest first."""
        found = {part.month: part for part in self.partitions if part.month is not None}
        return dict(sorted(found.items()))

    def part(self, month: Month) -> MonthPartition:
        """Return a month, by the name that its partition has."""
        partition, usual = self.months.get(month), self.table.partition(month)
        made_as = partition.name if partition and partition.name != usual else None
        return MonthPartition(self.table, month, made_as)


async def read_state(connection: AsyncConnection, schema: Schema) -> list[TableState]:
    """Read what there is of the event tables; raise MaintenanceError where they are not at head."""
    tables = await read_partitions(connection, schema)
    states = await read_month_states(connection, schema)
    return [
        replace(
            state,
            strays=tuple(await read_strays(connection, schema, state.table)),
            states=tuple(states[state.table.name]),
        )
        for state in tables
    ]


async def read_partitions(
    connection: AsyncConnection, schema: Schema, *, sized: bool = True
) -> list[TableState]:
    """Read what the server's catalog says of the event tables, and no row of a table.

    Raises MaintenanceError where they are not at head.
    """
    partitions = await _partitions(connection, schema, sized=sized)
    missing = [table.name for table in EVENT_TABLES if not partitions[table.name]]
    if missing:
        raise MaintenanceError(
            f"there are no partitions of {', '.join(missing)} in schema {schema.name}: "
            "run `agentobs db upgrade`"
        )
    references = await _references(connection, schema)
    names = await _Names.read(connection, schema)
    return [
        TableState(
            table,
            tuple(partitions[table.name]),
            strays=(),
            states=(),
            references=tuple(references[table.name]),
            **names.of(table, partitions[table.name]),
        )
        for table in EVENT_TABLES
    ]


async def _partitions(
    connection: AsyncConnection, schema: Schema, *, sized: bool
) -> dict[str, list[Partition]]:
    found: dict[str, list[Partition]] = {table.name: [] for table in EVENT_TABLES}
    values = {"schema": schema.name, "tables": list(found), "sized": sized}
    rows = await connection.execute(_PARTITIONS, values)
    for table, name, words, is_plain, estimated, size in rows:
        bounds = _bounds_of(words)
        # One that has partitions itself, or lies on another server, is the host's own affair.
        month = Month.of_bounds(*bounds) if bounds and is_plain else None
        found[table].append(Partition(name, month, words == "DEFAULT", estimated, size, bounds))
    return found


def _bounds_of(words: str) -> tuple[UUID, UUID] | None:
    match = _RANGE.fullmatch(words)
    if match is None:
        return None
    lower, upper = (_ENDLESS.get(bound) or UUID(bound) for bound in match.groups())
    return lower, upper


async def read_month_states(
    connection: AsyncConnection, schema: Schema
) -> dict[str, list[MonthState]]:
    """Read what maintenance did to the months of each table, oldest first."""
    found: dict[str, list[MonthState]] = {table.name: [] for table in EVENT_TABLES}
    states = statement_with(_STATES, states=schema.qualified(STATES))
    for table, day, *facts in await connection.execute(states):
        found[table].append(MonthState(_month_of_day(day), *facts))
    return found


async def _references(connection: AsyncConnection, schema: Schema) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {table.name: [] for table in EVENT_TABLES}
    rows = await connection.execute(_REFERENCES, {"schema": schema.name, "tables": list(found)})
    for table, words in rows:
        found[table].append(words)
    return found


def _month_of_day(day: date) -> Month:
    return Month(day.year, day.month)


async def read_strays(
    connection: AsyncConnection, schema: Schema, table: EventTable, *, most: int | None = None
) -> list[Strays]:
    """Read how many rows DEFAULT has for each month; of `most` of them, where that is given."""
    statement = statement_with(
        _STRAYS, instant=table.instant, table=schema.qualified(table.default)
    ).bindparams(slack=SLACK, most=most)
    rows = await connection.execute(statement)
    return [Strays(first and Month.of(first), fits, count) for first, fits, count in rows]


@dataclass(frozen=True)
class _Names:
    """The tables beside the partitions that have a name of ours."""

    beside: dict[str, bool]
    """And whether an expiry has detached them."""
    captured: frozenset[str]

    @classmethod
    async def read(cls, connection: AsyncConnection, schema: Schema) -> _Names:
        values = {"schema": schema.name, "detached": DETACHED}
        beside = {row[0]: row[1] for row in await connection.execute(_BESIDE, values)}
        captured = await connection.scalars(_CAPTURED, {"schema": schema.name})
        return cls(beside, frozenset(captured))

    def of(self, table: EventTable, partitions: list[Partition]) -> dict[str, tuple[Month, ...]]:
        captured = {part.month for part in partitions if part.name in self.captured}
        rewritten = {month for month, _ in self._ending(table, REWRITE)}
        loose = self._ending(table, "")
        return {
            "rewrites": tuple(sorted(rewritten | {month for month in captured if month})),
            "restorations": tuple(month for month, _ in self._ending(table, RESTORATION)),
            "detached": tuple(month for month, is_detached in loose if is_detached),
            "in_the_way": tuple(month for month, is_detached in loose if not is_detached),
        }

    def _ending(self, table: EventTable, end: str) -> list[tuple[Month, bool]]:
        found = []
        for name, is_detached in sorted(self.beside.items()):
            suffix = name.removeprefix(f"{table.name}_").removesuffix(end)
            month = Month.of_suffix(suffix)
            if month and name == f"{table.partition(month)}{end}":
                found.append((month, is_detached))
        return found
