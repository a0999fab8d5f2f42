"""What was archived comes back, to the letter, and stays until it is released."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS, insert_child, new_key_of, parent_of
from support.maintenance import (
    FEBRUARY,
    MARCH,
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
from support.shell import connect

from agentobs import migrations
from agentobs.errors import MaintenanceError
from agentobs.keys import uuid7_at
from agentobs.maintenance import release, restore
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

PARTITION = f"{EVENTS}_{FEBRUARY.suffix}"
PAYLOAD = {"context_snapshot": '{"n": 1e400, "m": 1.00}', "user_request": "why"}


async def expired(
    settings: DatabaseSettings, folder: Path, what: str = "keep", table: str = EVENTS
) -> Path:
    """Let the month go, and return its archive."""
    await maintained(settings, letting_go(FEBRUARY, what, folder))
    end = "" if what == "keep" else "-payload"
    return folder / f"{table}_{FEBRUARY.suffix}{end}.parquet"


@pytest.mark.parametrize("table", [EVENTS, METRICS])
async def test_a_month_comes_back_to_the_letter(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, table: str
) -> None:
    await add_rows(look, FEBRUARY, 3, table)
    before = await texts_in(look, table)
    archive = await expired(agentobs_database, tmp_path, table=table)
    assert await texts_in(look, table) == []

    await restore(archive, settings=agentobs_database)

    assert await texts_in(look, table) == before
    assert f"{table}_{FEBRUARY.suffix}" in await partitions_of(look, table)
    assert await left_beside(look) == []
    await migrations.check(settings=agentobs_database)


async def test_a_month_that_came_back_stays_until_it_is_released(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3)
    await restore(await expired(agentobs_database, tmp_path), settings=agentobs_database)
    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []

    await release(PARTITION, settings=agentobs_database)

    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    assert await texts_in(look) == []
    assert len(list(tmp_path.glob("*.parquet"))) == 1


async def test_what_was_not_restored_can_not_be_released(
    agentobs_database: DatabaseSettings,
) -> None:
    with pytest.raises(MaintenanceError, match="is no month that was restored"):
        await release(PARTITION, settings=agentobs_database)


async def test_rows_that_came_since_stay_beside_those_that_come_back(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)
    archive = await expired(agentobs_database, tmp_path)
    late = await add_row(look, MARCH.first - timedelta(hours=1))

    await restore(archive, settings=agentobs_database)

    assert await texts_in(look, where=f"id <> '{late}'") == before
    assert await texts_in(look, f"{EVENTS}_default") == []
    assert len(await texts_in(look, PARTITION)) == 4


async def test_rows_of_a_month_that_is_there_are_completed(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    keys = await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)
    archive = await expired(agentobs_database, tmp_path)
    await restore(archive, settings=agentobs_database)
    await look.execute(text(f"DELETE FROM {EVENTS} WHERE id = '{keys[0]}'"))

    await restore(archive, settings=agentobs_database)

    assert await texts_in(look) == before
    assert await left_beside(look) == []


@pytest.mark.parametrize("place", ["month", "default"])
async def test_a_row_that_is_there_with_another_content_is_never_overwritten(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path, place: str
) -> None:
    (key,) = await add_rows(look, FEBRUARY, 1)
    archive = await expired(agentobs_database, tmp_path)
    await add_row(look, middle_of(FEBRUARY), id=key, user_request="another")
    if place == "month":
        await maintained(agentobs_database)
    before = await texts_in(look)

    with pytest.raises(MaintenanceError, match=r"1 rows of .* with another content"):
        await restore(archive, settings=agentobs_database)

    assert await texts_in(look) == before
    await maintained(agentobs_database)
    assert await left_beside(look) == []


async def test_a_row_that_was_sent_again_meanwhile_is_there_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    (key,) = await add_rows(look, FEBRUARY, 1, correlation_id=uuid7_at(FEBRUARY.first))
    before = await texts_in(look)
    archive = await expired(agentobs_database, tmp_path)
    await add_row(
        look, middle_of(FEBRUARY), id=key, correlation_id=uuid7_at(FEBRUARY.first), success=None
    )
    await look.execute(text(f"UPDATE {EVENTS} SET correlation_id = '{before[0].split(',')[2]}'"))

    await restore(archive, settings=agentobs_database)

    assert await texts_in(look) == before


async def test_a_foreign_id_in_the_way_gets_another_one(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3)
    archive = await expired(agentobs_database, tmp_path)
    foreign = await add_row(look, MARCH.end, id=uuid7_at(middle_of(FEBRUARY)))
    child = await insert_child(look, foreign)

    await restore(archive, settings=agentobs_database)

    assert await parent_of(look, child) == await new_key_of(look, foreign)
    assert len(await texts_in(look, PARTITION)) == 3


async def test_payload_comes_back_to_rows_that_have_none(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    keys = await add_rows(look, FEBRUARY, 3, **PAYLOAD)
    before = await texts_in(look)
    archive = await expired(agentobs_database, tmp_path, "keep_payload")
    assert await texts_in(look) != before

    await restore(archive, settings=agentobs_database)

    assert await texts_in(look) == before
    assert await steps_left(agentobs_database, letting_go(FEBRUARY, "keep_payload")) == []
    await look.execute(text(f"UPDATE {EVENTS} SET user_request = 'new' WHERE id = '{keys[0]}'"))
    after = await texts_in(look)
    await restore(archive, settings=agentobs_database)
    assert await texts_in(look) == after


async def test_payload_needs_its_rows(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3, **PAYLOAD)
    payload = await expired(agentobs_database, tmp_path, "keep_payload")
    await expired(agentobs_database, tmp_path)

    with pytest.raises(MaintenanceError, match="restore the archive of its rows first"):
        await restore(payload, settings=agentobs_database)

    assert await left_beside(look) == []


async def test_rows_come_back_in_another_database(
    agentobs_database: DatabaseSettings,
    look: AsyncConnection,
    agentobs_server: URL,
    agentobs_template: str,
    tmp_path: Path,
) -> None:
    await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)
    archive = await expired(agentobs_database, tmp_path)

    with temporary_database(agentobs_server, template=agentobs_template) as name:
        other = settings_for(agentobs_server, name)
        await restore(archive, settings=other)
        async with connect(other) as there:
            assert await texts_in(there) == before
        assert await steps_left(other, letting_go(FEBRUARY)) == []


async def test_what_a_restoration_has_left_that_was_broken_off_is_discarded(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text(f"CREATE TABLE {PARTITION}_restoration (LIKE {EVENTS} INCLUDING ALL)"))

    plan = await maintained(agentobs_database)

    assert [str(step) for step in plan.steps] == [
        f"discard what a restoration of {PARTITION} has left"
    ]
    assert await left_beside(look) == []


async def test_a_pin_outlasts_a_downgrade_and_the_next_upgrade(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3)
    await restore(await expired(agentobs_database, tmp_path), settings=agentobs_database)

    await migrations.downgrade("0004", settings=agentobs_database)
    await migrations.upgrade(settings=agentobs_database)

    assert await steps_left(agentobs_database, letting_go(FEBRUARY)) == []
