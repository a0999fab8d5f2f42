"""What of the host stands on the event tables goes along with revision 0005, and comes back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, INSTANTS, METRICS, insert_child, insert_row, rows_of

from agentobs import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

# What a host may add that is carried over, on either table.
ADDITIONS = {
    "a column": ["ALTER TABLE {table} ADD COLUMN host_note text NOT NULL DEFAULT 'é''%s'"],
    "a json column": [
        'ALTER TABLE {table} ADD COLUMN host_json json DEFAULT \'{{"a": 1,  "a": 2}}\''
    ],
    "a column that has no equality": [
        "ALTER TABLE {table} ADD COLUMN host_point point DEFAULT '(1,2)'"
    ],
    "a generated column": [
        (
            "ALTER TABLE {table} ADD COLUMN host_length int "
            "GENERATED ALWAYS AS (length(correlation_id::text)) STORED"
        )
    ],
    "an odd name": ['ALTER TABLE {table} ADD COLUMN "Host ""%s"" Näme" int DEFAULT 1'],
    "a dropped column": [
        "ALTER TABLE {table} ADD COLUMN host_gone int, ADD COLUMN host_kept int DEFAULT 2",
        "ALTER TABLE {table} DROP COLUMN host_gone",
    ],
    "a key of its own": [
        "CREATE TABLE host_tenants (id int PRIMARY KEY)",
        "INSERT INTO host_tenants VALUES (1)",
        (
            "ALTER TABLE {table} ADD COLUMN host_tenant int DEFAULT 1 CONSTRAINT host_key "
            "REFERENCES host_tenants ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED"
        ),
        "COMMENT ON CONSTRAINT host_key ON {table} IS 'Whose it is'",
    ],
    "a check": [
        'ALTER TABLE {table} ADD CONSTRAINT "Host check" CHECK (correlation_id <> id)',
        "COMMENT ON CONSTRAINT \"Host check\" ON {table} IS 'Not %s the same'",
    ],
    "indexes": [
        "CREATE INDEX host_index ON {table} USING hash (correlation_id)",
        (
            'CREATE INDEX "Host ON ONLY index" ON {table} '
            "(lower(correlation_id::text) DESC NULLS LAST)"
            " INCLUDE (id) WITH (fillfactor = 70) WHERE correlation_id IS NOT NULL"
        ),
        "COMMENT ON INDEX host_index IS 'It''s %s the host''s'",
    ],
    "statistics": [
        "CREATE STATISTICS host_statistics (dependencies) ON correlation_id, id FROM {table}",
        "ALTER TABLE {table} ALTER COLUMN correlation_id SET STATISTICS 500",
    ],
    "storage": [
        (
            "ALTER TABLE {table} SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, "
            "toast.autovacuum_enabled = off)"
        ),
        "ALTER TABLE {table} ADD COLUMN host_text text",
        "ALTER TABLE {table} ALTER COLUMN host_text SET STORAGE EXTERNAL",
    ],
    "comments": [
        "COMMENT ON TABLE {table} IS NULL",
        "COMMENT ON COLUMN {table}.id IS 'Host''s %s \\ words'",
    ],
    "a default": ["ALTER TABLE {table} ALTER COLUMN correlation_id SET DEFAULT gen_random_uuid()"],
}
# Beyond the catalog as the other tests read it.
MORE = text(
    """
    SELECT relname, reloptions, relacl::text, relowner::regrole::text,
           (SELECT t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid),
           ARRAY(SELECT attacl::text || attname FROM pg_attribute WHERE attrelid = c.oid
                 AND attacl IS NOT NULL ORDER BY 1),
           ARRAY(SELECT attname || attstorage::text || coalesce(attstattarget, -1)
                 FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                 ORDER BY 1),
           ARRAY(SELECT conname || coalesce(obj_description(oid, 'pg_constraint'), '-')
                 FROM pg_constraint WHERE conrelid = c.oid ORDER BY 1),
           ARRAY(SELECT indexrelid::regclass || coalesce(obj_description(indexrelid), '-')
                 FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
           ARRAY(SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
                 WHERE stxrelid = c.oid ORDER BY 1)
    FROM pg_class c
    WHERE relname IN ('agent_transformation_events', 'router_performance_metrics')
    ORDER BY 1
    """
)


@pytest_asyncio.fixture
async def at_0004(empty: DatabaseSettings, connection: AsyncConnection) -> AsyncConnection:
    await migrations.upgrade("0004", settings=empty)
    return connection


async def everything(connection: AsyncConnection) -> list[Any]:
    catalog = [await read_catalog(connection), (await connection.execute(MORE)).all()]
    return [*catalog, [await rows_of(connection, table) for table in INSTANTS]]


@asynccontextmanager
async def round_trip(
    settings: DatabaseSettings, connection: AsyncConnection
) -> AsyncIterator[None]:
    """Upgrade to 0005, and downgrade after the block: all is what it was."""
    before = await everything(connection)
    await migrations.upgrade("0005", settings=settings)
    yield
    await migrations.downgrade("0004", settings=settings)
    assert await everything(connection) == before


@pytest.mark.parametrize("table", INSTANTS)
@pytest.mark.parametrize("kind", ADDITIONS)
async def test_what_a_host_added_comes_back(
    empty: DatabaseSettings, at_0004: AsyncConnection, kind: str, table: str
) -> None:
    parent = await insert_row(at_0004)
    await insert_child(at_0004, parent)
    await insert_row(at_0004, METRICS, correlation_id=uuid4())
    for statement in ADDITIONS[kind]:
        await at_0004.exec_driver_sql(statement.format(table=table))

    async with round_trip(empty, at_0004):
        pass


@pytest.mark.parametrize("table", INSTANTS)
async def test_an_index_and_a_check_of_the_host_hold_for_every_partition(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    for kind in ("indexes", "a check"):
        for statement in ADDITIONS[kind]:
            await at_0004.exec_driver_sql(statement.format(table=table))

    async with round_trip(empty, at_0004):
        found = await at_0004.execute(
            text(
                "SELECT (SELECT count(*) FROM pg_constraint WHERE conrelid = relid "
                "AND conname = 'Host check'), (SELECT count(*) FROM pg_index WHERE "
                "indrelid = relid AND pg_get_indexdef(indexrelid) LIKE '%hash (correlation_id)') "
                f"FROM pg_partition_tree('{table}')"
            )
        )
        assert {tuple(row) for row in found} == {(1, 1)}


async def test_storage_settings_are_those_of_every_partition(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    await at_0004.exec_driver_sql(f"ALTER TABLE {EVENTS} SET (fillfactor = 80)")

    async with round_trip(empty, at_0004):
        query = f"SELECT relid, reloptions FROM pg_partition_tree('{EVENTS}') JOIN pg_class "
        leaves = await at_0004.execute(text(f"{query} ON oid = relid WHERE isleaf"))
        assert {tuple(options) for _, options in leaves} == {("fillfactor=80",)}


async def _new_role(connection: AsyncConnection, name: str) -> str:
    role = f"{name} {uuid4().hex}"
    await connection.exec_driver_sql(f'CREATE ROLE "{role}"')
    return f'"{role}"'


@asynccontextmanager
async def two_roles(connection: AsyncConnection) -> AsyncIterator[tuple[str, str]]:
    roles = await _new_role(connection, "Reader %s"), await _new_role(connection, "Writer")
    try:
        yield roles
    finally:
        for role in roles:
            await connection.exec_driver_sql(f"DROP OWNED BY {role}")
            await connection.exec_driver_sql(f"DROP ROLE {role}")


@pytest.mark.parametrize("table", INSTANTS)
async def test_rights_are_the_same_at_0005_and_none_are_on_partitions(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    async with two_roles(at_0004) as (reader, writer):
        for grant in (
            f"SELECT ON {table} TO {reader}",
            f"INSERT, DELETE ON {table} TO {writer} WITH GRANT OPTION",
            f"SELECT (id, correlation_id), UPDATE (correlation_id) ON {table} TO {writer}",
            f"REFERENCES (id) ON {table} TO PUBLIC",
            f"TRIGGER ON {table} TO PUBLIC",
        ):
            await at_0004.exec_driver_sql(f"GRANT {grant}")
        rights = (await at_0004.execute(MORE)).all()

        async with round_trip(empty, at_0004):
            at_0005 = (await at_0004.execute(MORE)).all()
            assert [(*row[2:4], row[5]) for row in at_0005] == [
                (*row[2:4], row[5]) for row in rights
            ]
            leaves = f"SELECT relacl FROM pg_partition_tree('{table}') JOIN pg_class ON oid = relid"
            assert set(await at_0004.scalars(text(f"{leaves} WHERE isleaf"))) == {None}


async def test_rights_that_a_host_gives_by_default_are_not_given_anew(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    async with two_roles(at_0004) as (reader, _):
        default = f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}, PUBLIC"
        await at_0004.exec_driver_sql(default)

        await migrations.upgrade("0005", settings=empty)

        name = reader.strip('"')
        may = text(
            f"SELECT DISTINCT has_table_privilege('{name}', relid, 'SELECT') "
            f"FROM pg_partition_tree('{EVENTS}')"
        )
        assert (await at_0004.scalars(may)).all() == [False]


async def test_the_owner_of_the_tables_owns_all_that_is_made(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    async with two_roles(at_0004) as (owner, _):
        await at_0004.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {owner}")
        for table in INSTANTS:
            await at_0004.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {owner}")

        async with round_trip(empty, at_0004):
            owners = text(
                "SELECT relowner::regrole::text FROM pg_class WHERE relkind IN ('r', 'p') "
                f"AND (relname LIKE '{EVENTS}%' OR relname LIKE '{METRICS}%' "
                "OR relname = 'agentobs_partitions') UNION SELECT proowner::regrole::text "
                "FROM pg_proc WHERE proname LIKE 'agentobs%' AND prosecdef"
            )
            assert (await at_0004.scalars(owners)).all() == [owner]
        for table in INSTANTS:
            await at_0004.exec_driver_sql(f"ALTER TABLE {table} OWNER TO CURRENT_USER")
