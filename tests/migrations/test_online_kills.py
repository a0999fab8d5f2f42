"""Killed at any point, an online upgrade goes on or is taken back, and nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, METRICS
from support.pools import eventually
from support.scripted import fill_old_tables
from support.shell import HEAD, REPOSITORY, connect, connect_in_transaction, environment, psql

from agentobs import migrations
from agentobs.errors import MigrationError
from agentobs.migrations.online import copying, locks, rows

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

POINTS = [
    ("begin._note_changes", "after", 1),
    ("run.begin", "after", 1),
    ("copying.write_rows", "after", 1),
    ("run.copy_rows", "after", 1),
    ("indexing._make_indexes", "after", 2),
    ("indexing._make_foreign_keys", "before", 1),
    ("run.index_partitions", "after", 2),
    ("run.verify", "after", 1),
    ("swap._take_the_rest", "after", 1),
    ("swap._finish", "after", 1),
    ("swap._swap_under_locks", "after", 1),
    ("run.swap", "after", 1),
    ("run.run_locked", "after", 1),
]
BACKENDS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agentobs online' "
    "AND datname = current_database()"
)
END_IT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'agentobs online' AND datname = current_database()"
)
LATE = (
    f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent) "
    "VALUES (md5('late')::uuid, 'x', md5('late')::uuid, 'late')"
)


def run_killed(settings: DatabaseSettings, point: tuple[str, str, int]) -> None:
    command = [sys.executable, str(REPOSITORY / "tests/support/killed_online_upgrade.py")]
    result = subprocess.run(
        [*command, point[0], point[1], str(point[2])],
        env=environment(settings),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == -9, result.stderr


async def run_killed_and_wait(settings: DatabaseSettings, point: tuple[str, str, int]) -> None:
    """Let a run be killed; the server notices a moment later that its client is gone."""
    await asyncio.to_thread(run_killed, settings, point)
    async with connect(settings) as connection:

        async def is_gone() -> bool:
            return not await connection.scalar(BACKENDS)

        await eventually(is_gone)


async def counts(connection: AsyncConnection) -> tuple[int, ...]:
    return tuple(
        [
            await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0
            for table in (EVENTS, METRICS)
        ]
    )


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[1]} {point[0]} {point[2]}")
async def test_the_next_run_goes_on(
    empty: DatabaseSettings, connection: AsyncConnection, point: tuple[str, str, int]
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    # What a trigger has to note, if it is there already, is worked off by the next run.
    await run_killed_and_wait(empty, point)
    await connection.execute(text(LATE))

    await migrations.upgrade_online(settings=empty)

    assert await migrations.current(settings=empty) == HEAD
    assert await counts(connection) == (405, 400)
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'agentobs_online%'"
    assert await connection.scalar(text(left)) == 0
    await migrations.check(settings=empty)


@pytest.mark.parametrize("point", ["revisions.lock_tables", "run.run_locked"])
async def test_a_run_that_was_killed_on_the_way_to_the_first_revision_of_its_own_is_gone_on_with(
    empty: DatabaseSettings, connection: AsyncConnection, point: str
) -> None:
    """Before the commit of 0004, and after it."""
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    await migrations.downgrade("0003", settings=empty)
    await run_killed_and_wait(empty, (point, "after", 1))

    await migrations.upgrade_online(settings=empty)

    assert await migrations.current(settings=empty) == HEAD
    assert await counts(connection) == (404, 400)


@pytest.mark.parametrize("point", ["catching_up._take_away", "catching_up.write_rows"])
async def test_notes_that_were_being_worked_off_are_worked_off_by_the_next_run(
    empty: DatabaseSettings, connection: AsyncConnection, point: str
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    await run_killed_and_wait(empty, ("run.copy_rows", "after", 1))
    await connection.execute(text(LATE))
    await run_killed_and_wait(empty, (point, "after", 1))

    await migrations.upgrade_online(settings=empty)
    late = f"SELECT target_agent FROM {EVENTS} WHERE correlation_id = md5('late')::uuid"
    assert (await connection.scalars(text(late))).all() == ["late"]
    assert await counts(connection) == (405, 400)


@pytest.mark.parametrize("point", POINTS[1:-2], ids=lambda point: f"{point[1]} {point[0]}")
async def test_it_is_taken_back(
    empty: DatabaseSettings, connection: AsyncConnection, point: tuple[str, str, int]
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    before = await read_catalog(connection)
    await run_killed_and_wait(empty, point)

    await migrations.undo_online(settings=empty)

    assert await read_catalog(connection) == before
    assert await counts(connection) == (404, 400)
    await connection.execute(text(LATE))


async def test_a_connection_that_is_lost_is_an_error_and_the_next_run_goes_on(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    # A reader keeps the swap from its locks, so that there is a moment to end its backend in.
    async with connect_in_transaction(empty) as reader:
        await reader.execute(text(f"SELECT FROM {EVENTS} LIMIT 1"))
        upgrade = asyncio.create_task(migrations.upgrade_online(settings=empty))

        async def is_swapping() -> bool:
            found = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                    "'agentobs online' AND datname = current_database() "
                    "AND query LIKE 'LOCK TABLE%ACCESS EXCLUSIVE%'"
                )
            )
            return bool(found)

        await eventually(is_swapping)
        await connection.execute(text(END_IT))
        with pytest.raises(MigrationError):
            await upgrade

    await migrations.upgrade_online(settings=empty)
    assert await counts(connection) == (404, 400)


async def test_a_connection_that_is_lost_while_rows_are_copied_is_an_error_and_the_next_run_goes_on(
    empty: DatabaseSettings, connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    monkeypatch.setattr(copying, "BATCH", 100)
    write_rows, batches = rows.write_rows, []

    def write_without_a_backend(*arguments: Any) -> None:
        batches.append(arguments)
        if len(batches) == 3:
            assert psql(empty, END_IT).returncode == 0
        write_rows(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(copying, "write_rows", write_without_a_backend)
        with pytest.raises(MigrationError):
            await migrations.upgrade_online(settings=empty)
    copied = text("SELECT sum(copied) FROM agentobs_online_state")
    assert await connection.scalar(copied) == 200

    await migrations.upgrade_online(settings=empty)
    assert await counts(connection) == (404, 400)


async def test_how_far_the_copy_is_is_told(
    empty: DatabaseSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    async with connect(empty) as connection:
        await connection.exec_driver_sql(f"ANALYZE {EVENTS}")
    monkeypatch.setattr(copying, "BATCH", 150)
    monkeypatch.setattr(copying, "_SECONDS_BETWEEN_WORDS", 0)

    with caplog.at_level("INFO", logger="agentobs.migrations"):
        await migrations.upgrade_online(settings=empty)

    assert f"{EVENTS}: 150 rows of about 404 are copied" in caplog.messages
    assert f"{EVENTS}: 300 rows of about 404 are copied" in caplog.messages


async def test_who_keeps_a_lock_for_too_long_is_told_and_the_next_run_goes_on(
    empty: DatabaseSettings, connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await fill_old_tables(empty)
    async with connect_in_transaction(empty) as reader:
        await reader.execute(text(f"SELECT FROM {EVENTS} LIMIT 1"))
        with monkeypatch.context() as patched:
            patched.setattr(locks, "_PATIENCE_SECONDS", 0)
            with pytest.raises(MigrationError, match="others kept locks on the tables"):
                await migrations.upgrade_online(settings=empty)
    await connection.execute(text(LATE))

    await migrations.upgrade_online(settings=empty)
    assert await counts(connection) == (405, 400)
