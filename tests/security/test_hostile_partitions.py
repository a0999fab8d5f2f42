"""What a host made of the event tables may be called anything: maintenance works on with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import text
from support.event_rows import EVENTS
from support.hostile import (
    A_FEW,
    LONG,
    TEXTS,
    UNSTORABLE,
    add_canary,
    nothing_else_changes,
)
from support.maintenance import (
    FEBRUARY,
    MARCH,
    add_row,
    add_rows,
    letting_go,
    maintained,
    partitions_of,
    steps_left,
    texts_in,
)
from support.shell import connect

from agentobs.errors import AgentobsError
from agentobs.maintenance import Month, Policy, release, restore
from agentobs.maintenance.archive import (
    ArchiveSource,
    fingerprint,
    is_unchanged,
    list_archives,
    write_archive,
)
from agentobs.maintenance.tables import EVENTS as EVENT_TABLE
from agentobs.maintenance.tables import Schema
from agentobs.migrations.connection import open_connection, quoted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

HOSTILE = "'; DROP TABLE canary.kept; --\"%s :a\\:b {}{t}}} $$ $1 /*"
PUBLIC = Schema("public")
_RIGHTS = text("SELECT relowner::regrole::text, relacl::text FROM pg_class WHERE relname = :name")


@pytest_asyncio.fixture
async def host(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into the test's own database, where a canary stays as it is."""
    await add_canary(agentobs_database)
    async with connect(agentobs_database) as connection:
        yield connection
        assert await connection.scalar(text("SELECT note FROM canary.kept")) == "another one's row"


async def add_partition(host: AsyncConnection, name: str, first: Month, last: Month) -> None:
    bounds = f"FROM ('{first.lower_id}') TO ('{last.upper_id}')"
    await host.exec_driver_sql(
        f"CREATE TABLE {quoted(name)} PARTITION OF {EVENTS} FOR VALUES {bounds}"
    )


async def rows_in(host: AsyncConnection, name: str) -> list[str]:
    """Return the rows of a table of any name to the letter, in the order of its ids."""
    found = await host.exec_driver_sql(f"SELECT t::text FROM {quoted(name)} t ORDER BY 1")
    return list(found.scalars())


async def archive_of(folder: Path, kind: str) -> str:
    archives = list_archives(folder)
    (found,) = (each for each in archives if each.manifest and each.manifest.kind == kind)
    return found.location


async def test_a_partition_of_other_bounds_is_left_alone_and_named_in_the_plan(
    agentobs_database: DatabaseSettings, host: AsyncConnection
) -> None:
    await add_partition(host, HOSTILE, FEBRUARY, MARCH)
    await add_rows(host, FEBRUARY, 2)

    plan = await maintained(agentobs_database, letting_go(MARCH))

    assert plan.notes == (f"{HOSTILE} is left alone: it is no partition of a month",)
    assert len(await rows_in(host, HOSTILE)) == 2


async def test_a_month_of_a_hosts_name_loses_its_payload_goes_and_comes_back(
    agentobs_database: DatabaseSettings, host: AsyncConnection, tmp_path: Path
) -> None:
    await add_partition(host, HOSTILE, FEBRUARY, FEBRUARY)
    await add_rows(host, FEBRUARY, 2, context_snapshot='{"a": 1}', user_request="why")
    before = await texts_in(host)

    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload", tmp_path))
    assert await texts_in(host) != before
    await restore(await archive_of(tmp_path, "payload"), settings=agentobs_database)
    assert await rows_in(host, HOSTILE) == before
    await release(HOSTILE, settings=agentobs_database)

    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    assert await texts_in(host) == []
    await restore(await archive_of(tmp_path, "rows"), settings=agentobs_database)
    assert await texts_in(host) == before


async def test_columns_of_a_hosts_names_go_the_same_ways(
    agentobs_database: DatabaseSettings, host: AsyncConnection, tmp_path: Path
) -> None:
    names = [HOSTILE, ":a", "\\:a", "{}", "%s", "a b"]
    for name in names:
        column = f"ADD COLUMN {quoted(name)} text DEFAULT 'kept'"
        await host.exec_driver_sql(f"ALTER TABLE {EVENTS} {column}")
    keys = await add_rows(host, FEBRUARY, 2, context_snapshot='{"a": 1}')
    before = await texts_in(host)

    await maintained(agentobs_database)
    assert await texts_in(host, f"{EVENTS}_{FEBRUARY.suffix}") == before
    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload", tmp_path))
    await restore(await archive_of(tmp_path, "payload"), settings=agentobs_database)
    await release(f"{EVENTS}_{FEBRUARY.suffix}", settings=agentobs_database)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    rows = await archive_of(tmp_path, "rows")
    await restore(rows, settings=agentobs_database)
    await host.execute(text(f"DELETE FROM {EVENTS} WHERE id = :key"), {"key": keys[0]})
    await restore(rows, settings=agentobs_database)

    assert await texts_in(host) == before


async def test_a_table_beside_the_months_is_taken_for_none_of_them(
    agentobs_database: DatabaseSettings, host: AsyncConnection
) -> None:
    names = [f"{HOSTILE[:20]}_{FEBRUARY.suffix}", f"{EVENTS}_{FEBRUARY.suffix}_rewrite'\""]
    for name in names:
        await host.exec_driver_sql(f"CREATE TABLE {quoted(name)} (mine integer)")
    await add_row(host, FEBRUARY.first)

    await maintained(agentobs_database)

    assert f"{EVENTS}_{FEBRUARY.suffix}" in await partitions_of(host)
    assert await steps_left(agentobs_database) == []
    for name in names:
        assert await rows_in(host, name) == []


async def test_roles_of_any_name_own_the_tables_and_are_granted_new_ones(
    agentobs_database: DatabaseSettings, host: AsyncConnection
) -> None:
    owner, reader = (quoted(f"{HOSTILE[:40]} {role}") for role in ("owner", "reader"))
    await host.exec_driver_sql(f"CREATE ROLE {owner}")
    await host.exec_driver_sql(f"CREATE ROLE {reader}")
    try:
        await host.exec_driver_sql(f"GRANT CREATE, USAGE ON SCHEMA public TO {owner}")
        await host.exec_driver_sql(f"ALTER TABLE {EVENTS} OWNER TO {owner}")
        await host.exec_driver_sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader}")

        await maintained(agentobs_database, Policy(ahead=5))

        made = list(Month.of(Policy().now).and_following(5))[-1]
        found = await host.execute(_RIGHTS, {"name": f"{EVENTS}_{made.suffix}"})
        owned_by, granted = found.one()
        assert owned_by == owner
        assert "reader" not in str(granted)
    finally:
        for role in (owner, reader):
            await host.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
            await host.exec_driver_sql(f"DROP ROLE {role}")


async def _ask_for_each(database: DatabaseSettings, names: Iterable[str]) -> None:
    """Ask for tables, columns and schemas of names that nothing has."""
    there = f"{EVENTS}_default"
    async with open_connection(database) as connection:
        for name in names:
            for wanted in (
                fingerprint(connection, PUBLIC, name, ["id"]),
                fingerprint(connection, PUBLIC, there, [name]),
                fingerprint(connection, Schema(name), there, ["id"]),
            ):
                with pytest.raises(AgentobsError):
                    await wanted
                await connection.rollback()


async def test_names_that_nothing_has_are_refused(guarded: DatabaseSettings) -> None:
    async with nothing_else_changes(guarded):
        await _ask_for_each(guarded, (*A_FEW, *UNSTORABLE, LONG))


@pytest.mark.parametrize("name", [HOSTILE, "\x00", "\ud800", ""], ids=ascii)
async def test_nothing_is_archived_of_a_name_that_nothing_has(
    guarded: DatabaseSettings, tmp_path: Path, name: str
) -> None:
    table = ArchiveSource(PUBLIC, EVENT_TABLE, name)
    column = ArchiveSource(PUBLIC, EVENT_TABLE, f"{EVENTS}_default")
    async with nothing_else_changes(guarded), open_connection(guarded) as connection:
        with pytest.raises(AgentobsError):
            await write_archive(connection, table, tmp_path)
        with pytest.raises(AgentobsError):
            await write_archive(connection, column, tmp_path, payload=[name])
    assert not list(tmp_path.iterdir())


@settings(
    max_examples=3,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(names=TEXTS)
def test_any_names_that_nothing_has_are_refused(
    guarded: DatabaseSettings, names: list[str]
) -> None:
    async def story() -> None:
        async with nothing_else_changes(guarded):
            await _ask_for_each(guarded, names)

    asyncio.run(story())


async def test_an_archive_is_not_the_same_as_a_table_of_another_name(
    agentobs_database: DatabaseSettings, host: AsyncConnection, tmp_path: Path
) -> None:
    await add_partition(host, HOSTILE, FEBRUARY, FEBRUARY)
    await add_rows(host, FEBRUARY, 2)

    async with open_connection(agentobs_database) as connection:
        source = ArchiveSource(PUBLIC, EVENT_TABLE, HOSTILE, FEBRUARY)
        archive = await write_archive(connection, source, tmp_path)

        assert archive.manifest.partition == HOSTILE
        assert await is_unchanged(connection, PUBLIC, HOSTILE, archive.manifest)
        assert not await is_unchanged(connection, PUBLIC, f"{HOSTILE}x", archive.manifest)
