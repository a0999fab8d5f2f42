"""Partitions are emptied, rewritten, added and taken away: no row tells of it, none is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS
from support.maintenance import folds_left, letting_go, maintained
from support.rollups import (
    DAY,
    EVERYTHING,
    HOUR,
    LATER,
    MINUTE,
    NOON,
    decision,
    differences,
    fold,
    marked,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs.analytics import routing_summary
from agentobs.maintenance import Month, Policy, plan_maintenance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

MONTH = "router_performance_metrics_y2024m03"
# A host's own partition need not begin with an hour.
WITHIN_HOURS = (
    "FOR VALUES FROM (agentobs_uuid7_floor('2024-03-05 07:30+00')) "
    "TO (agentobs_uuid7_floor('2024-04-02 09:30+00'))"
)


@pytest_asyncio.fixture
async def look(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into a database with a partition of the month, of which all is folded."""
    rows = [decision(NOON + number * HOUR, 1000 + number) for number in range(30)]
    await store_rows(agentobs_database, *rows, run(NOON))
    await maintained(agentobs_database)
    await maintained(agentobs_database)
    async with connect(agentobs_database) as found:
        yield found


async def check(settings: DatabaseSettings) -> None:
    """Compare before a fold, and after it."""
    async with opened(settings) as session:
        assert await differences(session) == []
        await fold(settings)
        assert await differences(session) == []


async def test_maintenance_folds_and_has_nothing_left_to_do(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    assert await folds_left(agentobs_database) == []
    await check(agentobs_database)
    count = text("SELECT count(*) FROM agentobs_routing_rollups WHERE is_total AND NOT is_day")
    assert (await look.execute(count)).scalar_one() == 30


@pytest.mark.parametrize(
    "change",
    [
        f"TRUNCATE {METRICS}",
        f"TRUNCATE {MONTH}",
        f"VACUUM FULL {MONTH}",
        f"ALTER TABLE {METRICS} DETACH PARTITION {MONTH}",
        f"DROP TABLE {MONTH}",
        f"ALTER TABLE {METRICS} ADD COLUMN note text DEFAULT clock_timestamp()::text",
        f"ALTER TABLE {METRICS} ALTER COLUMN cache_key TYPE text USING cache_key || 'x'",
    ],
)
async def test_a_change_of_whole_partitions_is_seen_at_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection, change: str
) -> None:
    await look.execute(text(change))

    await check(agentobs_database)


async def test_a_partition_that_comes_with_rows_is_read_and_folded(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    for statement in (
        f"CREATE TABLE before (LIKE {METRICS} INCLUDING ALL)",
        f"INSERT INTO before SELECT * FROM {METRICS}",
        f"TRUNCATE {METRICS}",
        f"ALTER TABLE {METRICS} DETACH PARTITION {MONTH}",
        f"ALTER TABLE {METRICS} ATTACH PARTITION before {WITHIN_HOURS}",
    ):
        await look.execute(text(statement))

    await check(agentobs_database)
    async with opened(agentobs_database) as session:
        assert (await routing_summary(session, EVERYTHING)).decisions == 30


async def test_rows_that_come_while_a_trigger_is_off_are_read(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text(f"ALTER TABLE {METRICS} DISABLE TRIGGER USER"))
    await store_rows(agentobs_database, decision(NOON + MINUTE, 9))
    assert await marked(look) == []
    await check(agentobs_database)
    plan = await plan_maintenance(settings=agentobs_database)
    assert any("lack a trigger of the rollups" in note for note in plan.notes)
    await store_rows(agentobs_database, decision(NOON + 2 * MINUTE, 9))
    await check(agentobs_database)

    for moment in ("inserted", "updated", "deleted"):
        trigger = f"trigger_{METRICS}_rollups_{moment}"
        await look.execute(text(f"ALTER TABLE {METRICS} ENABLE ALWAYS TRIGGER {trigger}"))
    await check(agentobs_database)
    assert not (await plan_maintenance(settings=agentobs_database)).notes


async def test_a_month_is_rewritten_though_a_trigger_of_the_table_itself_is_not_always_on(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    # A partition takes its triggers from there: the rewritten one is read row by row.
    trigger = f"trigger_{METRICS}_rollups_inserted"
    await look.execute(text(f"ALTER TABLE ONLY {METRICS} ENABLE TRIGGER {trigger}"))

    await maintained(agentobs_database, letting_go(Month(2024, 3), "keep_payload"))

    await store_rows(agentobs_database, decision(NOON, 9))
    await check(agentobs_database)


async def test_a_month_that_is_made_for_rows_in_default_is_folded_from_there(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await store_rows(agentobs_database, decision(NOON - 60 * DAY), run(NOON - 60 * DAY))
    window = type(EVERYTHING)(NOON - 61 * DAY, LATER)
    for _ in range(2):
        async with opened(agentobs_database) as session:
            assert await differences(session, window) == []
        await maintained(agentobs_database)

    async with opened(agentobs_database) as session:
        assert await differences(session, window) == []
    assert await folds_left(agentobs_database) == []
    del look


async def test_all_is_read_and_folded_anew_where_an_operator_says_so(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    # As if rows had come without triggers, and without a trace of it.
    await look.execute(text("UPDATE agentobs_routing_rollups SET decisions = 0"))
    policy = Policy(rebuild_rollups=True)
    assert await folds_left(agentobs_database, policy) == [
        f"fold {table} anew, as far as its rows reach" for table in (EVENTS, METRICS)
    ]

    await maintained(agentobs_database, policy)

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
        assert (await routing_summary(session, EVERYTHING)).decisions == 30
    assert await folds_left(agentobs_database) == []
