"""Killed at any point, the next run goes on: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, insert_child
from support.maintenance import (
    FEBRUARY,
    add_row,
    add_rows,
    left_beside,
    letting_go,
    maintained,
    middle_of,
    partitions_of,
    steps_left,
    texts_in,
)
from support.pools import eventually
from support.shell import REPOSITORY, environment

from agentobs.keys import uuid7_at
from agentobs.maintenance import restore
from agentobs.maintenance.archive import list_archives, verify_archive
from agentobs.maintenance.months import SLACK

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

    Point = tuple[str, str, int]

PARTITION = f"{EVENTS}_{FEBRUARY.suffix}"
# With the days of this age, February 2024 goes, and no month after it.
DAYS = str((datetime.now(UTC) - FEBRUARY.end - SLACK).days)
_BACKENDS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agentobs maintenance'"
)

DRAIN = [
    ("partitions.create_like", "after", 1),
    ("partitions.copy_ahead", "after", 1),
    ("locks._take", "after", 2),
    ("partitions.set_foreign_keys_aside", "after", 2),
    ("partitions.move_rows", "after", 1),
    ("partitions.attach", "after", 1),
    ("run.make_month", "after", 1),
]
EXPIRY = [
    ("retention.archive_month", "before", 1),
    ("retention.archive_month", "after", 1),
    ("retention.note_expired", "before", 1),
    ("retention.note_expired", "after", 1),
    ("retention._detach", "after", 1),
    ("retention.archive_month", "after", 2),
    ("retention._forget_former_ids", "after", 1),
    ("retention._drop", "after", 1),
]
REWRITE = [
    ("payload._capture_changes", "after", 1),
    ("payload.archive_month", "after", 1),
    ("payload.create_like", "after", 1),
    ("payload.declare_foreign_keys", "before", 1),
    ("payload._write_beside", "after", 1),
    ("payload._catch_up", "after", 1),
    ("payload.attach", "before", 1),
    ("payload.note_payload_expired", "after", 1),
    ("payload._swap", "after", 1),
]
RESTORATION = [
    ("restore.load_archive", "after", 1),
    ("restore._load", "after", 1),
    ("restore.declare_foreign_keys", "after", 1),
    ("restore.attach", "before", 1),
    ("restore.note_restored", "after", 1),
    ("restore._attach", "after", 1),
]


async def killed(
    settings: DatabaseSettings, look: AsyncConnection, point: Point, *command: object
) -> None:
    """Run maintenance until it is killed, and until its server process is gone, too."""
    script = REPOSITORY / "tests" / "support" / "killed_maintenance.py"
    run = subprocess.run(
        [sys.executable, script, *map(str, (*point, *command))],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -9, run.stderr

    async def it_is_gone() -> bool:
        return not await look.scalar(_BACKENDS)

    await eventually(it_is_gone)


@pytest.mark.parametrize("point", DRAIN, ids=str)
async def test_rows_that_were_on_their_way_out_of_default_are_there_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, point: Point
) -> None:
    await add_rows(look, FEBRUARY, 3)
    foreign = await add_row(look, datetime.now(UTC), id=uuid7_at(middle_of(FEBRUARY)))
    await insert_child(look, foreign)
    without = f"SELECT started_at, target_agent FROM {EVENTS} ORDER BY 1"
    before = (await look.execute(text(without))).all()

    await killed(agentobs_database, look, point, "maintain", "keep", "9999", tmp_path)
    await maintained(agentobs_database)

    assert (await look.execute(text(without))).all() == before
    assert len(await texts_in(look, PARTITION)) == 3
    assert await look.scalar(text(f"SELECT count(*) FROM {EVENTS}_original_ids")) == 1
    orphans = f"NOT EXISTS (SELECT FROM {EVENTS} p WHERE p.id = t.parent_event_id)"
    assert await texts_in(look, where=f"parent_event_id IS NOT NULL AND {orphans}") == []
    assert await left_beside(look) == []
    assert await steps_left(agentobs_database) == []


@pytest.mark.parametrize("point", EXPIRY, ids=str)
async def test_rows_that_were_to_be_let_go_are_in_the_archive_once_and_gone_from_the_table(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, point: Point
) -> None:
    await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)
    await maintained(agentobs_database)

    await killed(agentobs_database, look, point, "maintain", "keep", DAYS, tmp_path)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))

    assert await texts_in(look) == []
    assert PARTITION not in await partitions_of(look)
    assert await left_beside(look) == []
    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []
    (archive,) = list_archives(tmp_path)
    assert verify_archive(archive.location).rows == 3
    await restore(archive.location, settings=agentobs_database)
    assert await texts_in(look) == before


@pytest.mark.parametrize("point", REWRITE, ids=str)
async def test_a_month_that_was_being_rewritten_is_whole_and_its_payload_is_in_the_archive(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, point: Point
) -> None:
    keys = await add_rows(look, FEBRUARY, 3, user_request="why")
    before = await texts_in(look)
    await maintained(agentobs_database)

    await killed(agentobs_database, look, point, "maintain", "keep_payload", DAYS, tmp_path)
    policy = letting_go(FEBRUARY, "keep_payload", tmp_path)
    await maintained(agentobs_database, policy)

    requests = text(f"SELECT id, user_request FROM {EVENTS} ORDER BY id")
    assert (await look.execute(requests)).all() == [(key, None) for key in keys]
    assert await left_beside(look) == []
    assert await steps_left(agentobs_database, policy) == []
    (archive,) = list_archives(tmp_path)
    await restore(archive.location, settings=agentobs_database)
    assert await texts_in(look) == before


@pytest.mark.parametrize("point", RESTORATION, ids=str)
async def test_a_month_that_was_being_restored_is_there_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, point: Point
) -> None:
    await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    (archive,) = list_archives(tmp_path)

    await killed(agentobs_database, look, point, "restore", archive.location)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    await restore(archive.location, settings=agentobs_database)

    assert await texts_in(look) == before
    assert await left_beside(look) == []
    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []
