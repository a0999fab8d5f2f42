from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.shell import HEAD, alembic, connect_in_transaction

from agentobs import migrations
from agentobs.errors import (
    MigrationError,
    SchemaDriftError,
    TablesExistError,
    UnknownRevisionError,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

# Ends the migration that waits for a lock, once it does.
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'agentobs migrations' AND datname = current_database()
      AND wait_event_type = 'Lock'
"""

REVISIONS = [revision.revision for revision in reversed(list(migrations.revisions()))]


def test_the_revisions_are_one_line_with_one_head() -> None:
    befores = [revision.down_revision for revision in reversed(list(migrations.revisions()))]

    assert befores == [None, *REVISIONS[:-1]]


async def test_each_step_goes_up_and_down_twice_and_comes_back_the_same(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    before = await read_catalog(connection)
    for revision in REVISIONS:
        await migrations.upgrade(revision, settings=empty)
        after = await read_catalog(connection)

        await migrations.downgrade("-1", settings=empty)
        assert await read_catalog(connection) == before, f"down from {revision}"
        await migrations.upgrade(revision, settings=empty)
        assert await read_catalog(connection) == after, f"up to {revision} again"
        before = after


async def test_base_leaves_nothing_behind(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.downgrade("base", settings=at_head)

    assert all(rows == [] for rows in (await read_catalog(connection)).values())
    assert await migrations.current(settings=at_head) is None


async def test_the_database_at_head_matches_the_models(at_head: DatabaseSettings) -> None:
    await migrations.check(settings=at_head)


async def test_check_names_what_differs(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("DROP INDEX idx_agent_definitions_performance"))

    with pytest.raises(SchemaDriftError, match="idx_agent_definitions_performance") as caught:
        await migrations.check(settings=at_head)

    assert len(caught.value.differences) == 1


async def test_check_sees_a_check_constraint_that_is_gone(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(
        text("ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_success_rate_check")
    )

    with pytest.raises(SchemaDriftError, match="success_rate_check"):
        await migrations.check(settings=at_head)


async def test_a_failure_inside_a_revision_leaves_the_revision_before(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade("0001", settings=empty)
    at_0001 = await read_catalog(connection)
    # 0002 makes its table and its first indexes before it meets this one.
    await connection.execute(
        text("CREATE VIEW idx_agent_transformation_events_definition AS SELECT 1")
    )
    with pytest.raises(MigrationError) as caught:
        await migrations.upgrade(settings=empty)
    await connection.execute(text("DROP VIEW idx_agent_transformation_events_definition"))

    assert caught.value.revision == "0001"
    assert await migrations.current(settings=empty) == "0001"
    assert await read_catalog(connection) == at_0001


@pytest.mark.parametrize("table", ["agent_definitions", "router_performance_metrics"])
async def test_tables_without_a_revision_are_refused_and_left_alone(
    table: str, empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text(f"CREATE TABLE {table} (id integer)"))
    before = await read_catalog(connection)

    with pytest.raises(TablesExistError, match=f"schema public holds {table}"):
        await migrations.upgrade(settings=empty)

    assert await read_catalog(connection) == before


async def test_a_database_of_a_newer_package_is_refused_by_its_revision(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(UnknownRevisionError, match="revision 9999") as caught:
        await migrations.upgrade(settings=at_head)

    assert caught.value.revision == "9999"


async def test_a_newer_database_can_be_recorded_anew(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))
    run = alembic("stamp", "--purge", HEAD, settings=at_head)

    assert run.returncode == 0, run.stderr
    assert await migrations.current(settings=at_head) == HEAD


async def test_a_table_in_the_way_of_a_later_revision_is_no_reason_to_stamp(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade("0001", settings=empty)
    await connection.execute(text("CREATE TABLE router_performance_metrics (id integer)"))

    with pytest.raises(MigrationError, match="The database is at 0002") as caught:
        await migrations.upgrade(settings=empty)

    assert not isinstance(caught.value, TablesExistError)
    assert caught.value.revision == "0002" == await migrations.current(settings=empty)


async def test_a_lost_connection_does_not_claim_where_the_database_is_left(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade("0001", settings=empty)
    async with connect_in_transaction(empty) as blocker:
        await blocker.execute(text("LOCK TABLE agent_definitions IN ACCESS EXCLUSIVE MODE"))
        run = asyncio.create_task(migrations.downgrade("base", settings=empty))
        while not await connection.scalar(text(TERMINATE)):
            assert not run.done()
        with pytest.raises(MigrationError, match=r"is at 0001|agentobs db current"):
            await run

    assert await migrations.current(settings=empty) == "0001"


async def test_a_server_that_takes_no_writes_is_a_clear_error(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    database = await connection.scalar(text("SELECT current_database()"))
    await connection.execute(
        text(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    )

    with pytest.raises(MigrationError, match="takes no writes"):
        await migrations.upgrade(settings=empty)
    with pytest.raises(MigrationError, match="the database is at base"):
        await migrations.check(settings=empty)


async def test_check_makes_nothing_in_an_empty_database(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    with pytest.raises(MigrationError, match="run `agentobs db upgrade`"):
        await migrations.check(settings=empty)

    assert all(rows == [] for rows in (await read_catalog(connection)).values())


async def test_objects_that_depend_on_a_table_are_named(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE VIEW busy AS SELECT agent_name FROM agent_definitions"))

    with pytest.raises(MigrationError, match="view busy depends on table agent_definitions"):
        await migrations.downgrade("base", settings=at_head)


async def test_a_target_that_does_not_exist_is_a_clear_error(empty: DatabaseSettings) -> None:
    with pytest.raises(MigrationError, match="0815"):
        await migrations.upgrade("0815", settings=empty)


async def test_the_run_ends_with_each_revision_and_the_tables_on_stderr(
    empty: DatabaseSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    await migrations.upgrade(settings=empty)
    output = capsys.readouterr()

    assert output.out == ""
    assert f"is now at {HEAD}" in output.err
    for word in (*REVISIONS, "agent_transformation_events", "kB", " s\n"):
        assert word in output.err


async def test_a_second_upgrade_does_nothing_and_says_so(
    at_head: DatabaseSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    await migrations.upgrade(settings=at_head)

    assert f"is at {HEAD}: nothing to do" in capsys.readouterr().err


async def test_tables_that_are_known_to_be_a_revisions_own_are_stamped(
    at_head: DatabaseSettings, connection: AsyncConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    await connection.execute(text(f"DROP TABLE {migrations.VERSION_TABLE}"))
    capsys.readouterr()

    await migrations.stamp(HEAD, settings=at_head)

    assert f"is recorded to be at {HEAD}: nothing was run" in capsys.readouterr().err
    await migrations.check(settings=at_head)


async def test_a_lock_that_does_not_come_ends_the_run_within_its_timeout(
    empty: DatabaseSettings,
) -> None:
    await migrations.upgrade("0001", settings=empty)
    async with connect_in_transaction(empty) as other:
        await other.execute(text("LOCK TABLE agent_definitions IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(MigrationError, match="55P03") as caught:
            await migrations.downgrade("base", settings=empty)

    assert caught.value.revision == "0001"
    assert await migrations.current(settings=empty) == "0001"
