"""What every check looks at: one connection, one schema, the tables that are ours in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, String, Table, select, text

from agentobs.doctor.connection import is_pooled, settle_for_good
from agentobs.doctor.findings import Server
from agentobs.errors import ConfigurationError, DatabaseError
from agentobs.maintenance.catalog import read_partitions
from agentobs.maintenance.tables import Schema
from agentobs.migrations.comparison import expected_catalog
from agentobs.migrations.scripts import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.doctor.thresholds import Thresholds
    from agentobs.maintenance.catalog import TableState
    from agentobs.sessions.address import Address
    from agentobs.settings import DatabaseSettings

_SERVER = text(
    """
    SELECT current_setting('server_version') AS version,
           CAST(current_setting('server_version_num') AS integer) AS version_number,
           current_database() AS database, coalesce(:schema, current_schema()) AS schema_name,
           current_user AS role, pg_is_in_recovery() AS is_standby
    """
)
# Tables of other names in the schema are the host's.
_RELATIONS = text(
    """
    WITH RECURSIVE ours AS (
        SELECT oid, relname AS root, relname AS name FROM pg_class
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)
          AND relname = ANY (CAST(:names AS text[])) AND relkind IN ('r', 'p', 'v')
        UNION ALL
        SELECT part.oid, root, part.relname
        FROM ours JOIN pg_inherits ON inhparent = ours.oid JOIN pg_class part ON part.oid = inhrelid
    )
    SELECT ours.oid, root, name,
           format('%I.%I', nspname, relname) AS qualified,
           has_table_privilege(ours.oid, 'SELECT') AS is_readable
    FROM ours JOIN pg_class USING (oid) JOIN pg_namespace ON pg_namespace.oid = relnamespace
    ORDER BY root, name
    """
)


@dataclass(frozen=True)
class Relation:
    """A table or view of ours, or a partition: `root` is the table that it belongs to."""

    oid: int
    root: str
    name: str
    qualified: str
    """Its name for SQL, quoted where it must be."""
    is_readable: bool


@dataclass(frozen=True)
class Context:
    """What a check is given; each of its statements is in a transaction that only reads.

    `is_pooled` says that the connection goes through a transaction pooler. `recorded` are the rows
    of the version table, None where the role may not read them.
    """

    connection: AsyncConnection
    settings: DatabaseSettings
    thresholds: Thresholds
    is_pooled: bool
    server: Server
    relations: tuple[Relation, ...]
    recorded: tuple[str, ...] | None
    _partitions: list[TableState] = field(default_factory=list, repr=False)

    @property
    def schema(self) -> Schema:
        """The schema of the tables."""
        return Schema(self.server.schema_name)

    @property
    def oids(self) -> list[int]:
        """The tables and their partitions, by number."""
        return [each.oid for each in self.relations]

    async def rows(self, statement: TextClause, **values: Any) -> list[Row[Any]]:
        """Return what a statement finds, in a transaction of its own."""
        async with self.connection.begin():
            return list(await self.connection.execute(statement, values))

    async def partitions(self) -> list[TableState]:
        """Return the partitions of the event tables, which are read once for all checks."""
        if not self._partitions:
            async with self.connection.begin():
                found = await read_partitions(self.connection, self.schema, sized=False)
            self._partitions.extend(found)
        return self._partitions


async def read_context(
    connection: AsyncConnection, address: Address, settings: DatabaseSettings, limits: Thresholds
) -> Context:
    """Read what all checks need; raise ConfigurationError where there is no schema to look at."""
    pooled = await is_pooled(connection)
    if not pooled:
        await settle_for_good(connection, limits.check_timeout)
    facts = await _facts(connection, settings)
    relations = await _relations(connection, facts["schema_name"])
    recorded = await _recorded(connection, facts["schema_name"], relations)
    server = Server(place=address.place, revision=max(recorded) if recorded else None, **facts)
    return Context(connection, settings, limits, pooled, server, relations, recorded)


async def _facts(connection: AsyncConnection, settings: DatabaseSettings) -> Mapping[str, Any]:
    values = {"schema": settings.schema_name}
    async with connection.begin():
        facts = dict((await connection.execute(_SERVER, values)).mappings().one())
    if facts["schema_name"] is None:
        raise ConfigurationError(
            "the connection's search_path names no schema that exists: create one, "
            "or name one in AGENTOBS_SCHEMA",
            setting="AGENTOBS_SCHEMA",
        )
    return facts


async def _relations(connection: AsyncConnection, schema: str) -> tuple[Relation, ...]:
    names = [*expected_catalog("head").tables, VERSION_TABLE]
    async with connection.begin():
        found = await connection.execute(_RELATIONS, {"schema": schema, "names": names})
        return tuple(Relation(**row) for row in found.mappings())


async def _recorded(
    connection: AsyncConnection, schema: str, relations: tuple[Relation, ...]
) -> tuple[str, ...] | None:
    if VERSION_TABLE not in {each.root for each in relations}:
        return ()
    table = Table(VERSION_TABLE, MetaData(), Column("version_num", String), schema=schema)
    try:
        async with connection.begin():
            return tuple(await connection.scalars(select(table.c.version_num)))
    except DatabaseError:
        return None
