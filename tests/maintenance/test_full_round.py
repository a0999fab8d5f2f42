"""The life of a year of rows: made, archived, dropped, and brought back as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import text
from support.event_rows import EVENTS, METRICS, insert_child
from support.maintenance import (
    add_row,
    letting_go,
    maintained,
    middle_of,
    partitions_of,
    steps_left,
    texts_in,
)

from agentobs.maintenance import Month, restore
from agentobs.maintenance.archive import list_archives, verify_archive

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

FIRST = Month(2024, 1)
MONTHS = list(FIRST.and_following(13))
assert MONTHS[-1] < Month.of(datetime.now(UTC))


async def test_fourteen_months_are_archived_dropped_and_restored_as_they_were(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    parent = None
    for month in MONTHS:
        for instant in (month.first, middle_of(month)):
            key = await add_row(look, instant, context_snapshot='{"n": 1e400, "m": 1.00}')
            await add_row(look, instant, METRICS, feedback_details='{"é": "\\ud83e\\udd80"}')
        if parent is not None:
            await insert_child(look, parent)
        parent = key
    before = {table: await texts_in(look, table) for table in (EVENTS, METRICS)}
    policy = letting_go(MONTHS[-1], archive=tmp_path)
    gone = f"id < '{MONTHS[-1].upper_id}'"

    await maintained(agentobs_database, policy)

    assert await texts_in(look, where=gone) == []
    assert not {f"{EVENTS}_{month.suffix}" for month in MONTHS} & set(await partitions_of(look))
    archives = [found.location for found in list_archives(tmp_path)]
    assert sum(verify_archive(location).rows for location in archives) == 4 * 14
    for location in archives:
        await restore(location, settings=agentobs_database)

    assert {table: await texts_in(look, table) for table in (EVENTS, METRICS)} == before
    assert await steps_left(agentobs_database, policy) == []
    orphans = text(
        f"SELECT count(*) FROM {EVENTS} WHERE parent_event_id IS NOT NULL "
        f"AND parent_event_id NOT IN (SELECT id FROM {EVENTS})"
    )
    assert await look.scalar(orphans) == 0
