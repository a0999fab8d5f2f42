"""A database at head that is dumped by pg_dump comes back whole, with its links kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.dumps import dump, restore, run_dump
from support.event_rows import EVENTS, INSTANTS, PARENT_KEY, insert_child, insert_row, rows_of
from support.shell import connect

from agentobs import migrations
from agentobs.errors import ConstraintError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


async def state(connection: AsyncConnection) -> tuple[Any, ...]:
    return await read_catalog(connection), [await rows_of(connection, each) for each in INSTANTS]


@pytest_asyncio.fixture
async def source(agentobs_database: DatabaseSettings) -> DatabaseSettings:
    """Return a database at head with rows in months and in DEFAULT, and links between them."""
    async with connect(agentobs_database) as connection:
        parent = await insert_row(connection)
        child = await insert_child(connection, parent, id=uuid4(), started_at="infinity")
        await insert_child(connection, child, context_snapshot='{"a": 1e400}')
        for table in INSTANTS:
            await insert_row(connection, table)
    return agentobs_database


@pytest.mark.parametrize("options", [[], ["--load-via-partition-root"]], ids=["leaf", "root"])
async def test_a_restored_database_is_the_one_that_was_dumped(
    source: DatabaseSettings, empty: DatabaseSettings, options: list[str]
) -> None:
    async with connect(source) as connection:
        before = await state(connection)

    restore(empty, dump(source, "--format=custom", *options))

    async with connect(empty) as connection:
        assert await state(connection) == before
    await migrations.check(settings=empty)
    assert await migrations.current(settings=empty) == await migrations.current(settings=source)


async def test_a_plain_dump_is_run_by_psql(
    source: DatabaseSettings, empty: DatabaseSettings
) -> None:
    async with connect(source) as connection:
        before = await state(connection)

    run_dump(empty, dump(source, "--format=plain"))

    async with connect(empty) as connection:
        assert await state(connection) == before


async def test_links_are_kept_in_a_restored_database(
    source: DatabaseSettings, empty: DatabaseSettings
) -> None:
    restore(empty, dump(source, "--format=custom"))

    async with connect(empty) as connection:
        with pytest.raises(ConstraintError) as caught:
            await insert_child(connection, uuid4())
        parent = await insert_row(connection)
        child = await insert_child(connection, parent)
        await connection.execute(text(f"DELETE FROM {EVENTS} WHERE id = '{parent}'"))
        query = text(f"SELECT parent_event_id FROM {EVENTS} WHERE id = '{child}'")
        assert await connection.scalar(query) is None
    assert caught.value.constraint == PARENT_KEY


async def test_rows_alone_are_restored_into_a_database_that_was_migrated(
    source: DatabaseSettings, empty: DatabaseSettings
) -> None:
    await migrations.upgrade(settings=empty)
    tables = [f"--table={EVENTS}*", "--table=router_performance_metrics*"]
    async with connect(source) as connection:
        before = await state(connection)

    restore(empty, dump(source, "--format=custom", "--data-only", *tables))

    async with connect(empty) as connection:
        assert await state(connection) == before


async def test_a_database_in_a_schema_of_the_hosts_choice_is_restored_too(
    empty: DatabaseSettings, agentobs_database: DatabaseSettings
) -> None:
    host = empty.model_copy(update={"schema_name": 'Host "Obs"'})
    await migrations.upgrade(settings=host)
    schema = '"Host ""Obs"""'
    async with connect(empty) as connection:
        before = await read_catalog(connection, schema)

    restore(agentobs_database, dump(empty, "--format=custom", "--schema", '"Host ""Obs"""'))

    async with connect(agentobs_database) as connection:
        assert await read_catalog(connection, schema) == before
        await connection.execute(text("SET search_path = ''"))
        with pytest.raises(ConstraintError):
            await connection.execute(
                text(f"INSERT INTO {schema}.{EVENTS} (event_type, correlation_id, target_agent, "
                     f"parent_event_id) VALUES ('x', gen_random_uuid(), 'x', '{uuid4()}')")
            )  # fmt: skip
