"""A month that is too old goes: archived, detached, dropped; the rest stays as it is."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS, insert_child, parent_of
from support.maintenance import (
    FEBRUARY,
    JANUARY,
    MARCH,
    add_row,
    add_rows,
    left_beside,
    letting_go,
    maintained,
    middle_of,
    of_months,
    partitions_of,
    steps_left,
    texts_in,
)
from support.shell import connect_in_transaction

from agentobs.errors import ArchiveError, ConstraintError, MaintenanceBlockedError
from agentobs.keys import uuid7_at
from agentobs.maintenance import retention
from agentobs.maintenance.archive import list_archives
from agentobs.maintenance.archiving import archive_month

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

PARTITION = f"{EVENTS}_{FEBRUARY.suffix}"


def archived_in(folder: Path) -> list[tuple[str, int]]:
    found = [archive.manifest for archive in list_archives(folder)]
    return [(manifest.partition, manifest.rows) for manifest in found if manifest is not None]


async def test_what_is_too_old_goes_and_the_rest_stays(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        await add_rows(look, month, 2)
    kept = await texts_in(look, where=f"id >= '{MARCH.lower_id}'")

    await maintained(agentobs_database, letting_go(FEBRUARY))

    assert await texts_in(look) == kept
    assert PARTITION not in await partitions_of(look)
    assert await left_beside(look) == []
    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []


async def test_nothing_goes_by_default(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 2)

    await maintained(agentobs_database)

    assert len(await texts_in(look)) == 2


@pytest.mark.parametrize("table", [EVENTS, METRICS])
async def test_what_goes_is_in_the_archive(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, table: str
) -> None:
    await add_rows(look, FEBRUARY, 3, table)

    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))

    assert archived_in(tmp_path) == [(f"{table}_{FEBRUARY.suffix}", 3)]


async def test_rows_that_come_while_the_archive_is_taken_are_in_an_archive_too(
    agentobs_database: DatabaseSettings,
    look: AsyncConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await add_rows(look, FEBRUARY, 3)
    late = [MARCH.first - timedelta(hours=1)]

    async def archive_and_go_on(run: Run, part: MonthPartition, archive: str | None) -> None:
        await archive_month(run, part, archive)
        if late:
            await add_row(look, late.pop())

    monkeypatch.setattr(retention, "archive_month", archive_and_go_on)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))

    assert sorted(archived_in(tmp_path)) == [(PARTITION, 3), (PARTITION, 4)]


async def test_where_the_archive_can_not_be_written_nothing_goes(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3)
    (tmp_path / "file").touch()

    with pytest.raises(ArchiveError, match="File exists"):
        await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path / "file"))

    assert PARTITION in await partitions_of(look)
    assert len(await texts_in(look)) == 3


async def test_children_elsewhere_keep_their_link_to_a_parent_that_has_expired(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    parent = await add_row(look, middle_of(FEBRUARY))
    child = await insert_child(look, parent)

    await maintained(agentobs_database, letting_go(FEBRUARY))

    assert await parent_of(look, child) == parent
    late_child = await insert_child(look, parent)
    assert await parent_of(look, late_child) == parent
    with pytest.raises(ConstraintError):
        await insert_child(look, uuid7_at(middle_of(MARCH)))


async def test_late_rows_of_a_month_that_is_gone_are_archived_and_go_as_well(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    policy = letting_go(FEBRUARY, archive=tmp_path)
    await add_rows(look, FEBRUARY, 3)
    await maintained(agentobs_database, policy)
    await add_rows(look, FEBRUARY, 2)

    plan = await maintained(agentobs_database, policy)

    assert [step.split()[0] for step in of_months(plan.steps)] == ["make", "archive"]
    assert await texts_in(look) == []
    assert sorted(archived_in(tmp_path)) == [(PARTITION, 2), (PARTITION, 3)]


async def test_former_ids_go_with_their_rows(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    keys = [await add_row(look, middle_of(month)) for month in (FEBRUARY, MARCH)]
    for key in keys:
        await look.execute(
            text(f"INSERT INTO {EVENTS}_original_ids VALUES ('{key}', gen_random_uuid())")
        )

    await maintained(agentobs_database, letting_go(FEBRUARY))

    left = await look.scalars(text(f"SELECT id FROM {EVENTS}_original_ids"))
    assert list(left) == keys[1:]


async def test_a_partition_that_somebody_made_by_hand_goes_by_its_bounds_not_by_its_name(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await _by_hand(look, "winter", FEBRUARY)
    # The name of a month that is too old, the bounds of one that is not.
    await _by_hand(look, f"{EVENTS}_{JANUARY.suffix}", MARCH)
    for month in (FEBRUARY, MARCH):
        await add_rows(look, month, 2)
    kept = await texts_in(look, where=f"id >= '{MARCH.lower_id}'")

    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))

    assert await texts_in(look) == kept
    assert archived_in(tmp_path) == [(PARTITION, 2)]


async def test_a_table_that_has_the_name_of_an_expired_month_is_not_dropped(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 2)
    await maintained(agentobs_database, letting_go(FEBRUARY))
    await look.execute(text(f"CREATE TABLE {PARTITION} AS SELECT 1 AS precious"))

    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []


async def _by_hand(connection: AsyncConnection, name: str, month: Any) -> None:
    bounds = f"FROM ('{month.lower_id}') TO ('{month.upper_id}')"
    await connection.execute(text(f"CREATE TABLE {name} PARTITION OF {EVENTS} FOR VALUES {bounds}"))


async def test_a_month_that_could_not_be_made_does_not_fail_to_go_in_the_same_run(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 2)
    policy = letting_go(FEBRUARY, archive=tmp_path)
    async with connect_in_transaction(agentobs_database) as reader:
        await reader.execute(text(f"SELECT count(*) FROM {EVENTS}_default"))
        with pytest.raises(MaintenanceBlockedError, match=f"{EVENTS}_default"):
            await maintained(agentobs_database, policy, patience_seconds=0)

    assert len(await texts_in(look)) == 2
    await maintained(agentobs_database, policy)
    assert await texts_in(look) == []
