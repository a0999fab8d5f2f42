"""Transactions that are open while hours close: none of their rows is missed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text, update
from support.maintenance import maintained
from support.rollups import (
    DAY,
    HOUR,
    LATER,
    MINUTE,
    NOON,
    decision,
    differences,
    fold,
    folded_to,
    marked,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs import RouterPerformanceMetric
from agentobs.errors import MaintenanceBlockedError
from agentobs.keys import uuid7_at
from agentobs.rollups import FAMILIES, ROUTING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs import DatabaseSettings

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
EARLY = NOON + 10 * MINUTE
INTO_LEAF = text(
    "INSERT INTO router_performance_metrics_default (id, metric_type, measured_at) "
    "VALUES (:key, 'x', :instant)"
)


async def begin(session: AsyncSession) -> None:
    """Take the snapshot, where there is one for the whole transaction."""
    await session.execute(select(func.count()).select_from(RouterPerformanceMetric))


@pytest.mark.parametrize("level", LEVELS)
async def test_hours_are_folded_only_after_those_have_ended_who_wrote_before_they_closed(
    agentobs_database: DatabaseSettings, level: str
) -> None:
    await store_rows(agentobs_database, decision(NOON - HOUR))
    await fold(agentobs_database, EARLY)

    async with opened(agentobs_database, isolation_level=level) as writer:
        writer.add(decision(NOON + MINUTE))
        await writer.flush()
        assert not await fold(agentobs_database, LATER, [ROUTING])
        async with connect(agentobs_database) as look:
            assert await folded_to(look) == NOON
            assert await marked(look) == []
        await writer.commit()

    assert await fold(agentobs_database, LATER)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


@pytest.mark.parametrize("level", LEVELS)
async def test_who_began_before_an_hour_closed_and_writes_to_it_later_marks_it(
    agentobs_database: DatabaseSettings, level: str
) -> None:
    await store_rows(agentobs_database, decision(NOON), decision(NOON + 2 * HOUR))
    await fold(agentobs_database, EARLY)

    async with opened(agentobs_database, isolation_level=level) as writer:
        await begin(writer)
        assert await fold(agentobs_database, LATER)
        writer.add(decision(NOON + MINUTE))
        await writer.execute(
            update(RouterPerformanceMetric)
            .where(RouterPerformanceMetric.measured_at == NOON + 2 * HOUR)
            .values(total_routing_time_us=5)
        )
        # What is folded meanwhile takes no mark away that it can't see.
        await store_rows(agentobs_database, decision(NOON + MINUTE))
        await fold(agentobs_database, LATER)
        await writer.commit()

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
    async with connect(agentobs_database) as look:
        assert await marked(look) == [NOON, NOON + 2 * HOUR]
    await fold(agentobs_database, LATER)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


@pytest.mark.parametrize("level", LEVELS)
async def test_a_partition_that_is_written_to_by_its_name_is_waited_for_as_well(
    agentobs_database: DatabaseSettings, level: str
) -> None:
    await fold(agentobs_database, EARLY)

    async with opened(agentobs_database, isolation_level=level) as writer:
        await writer.execute(INTO_LEAF, {"key": uuid7_at(NOON), "instant": NOON})
        assert not await fold(agentobs_database, LATER, [ROUTING])
        await writer.commit()

    assert await fold(agentobs_database, LATER)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


async def test_the_newest_of_many_writers_is_waited_for(
    agentobs_database: DatabaseSettings,
) -> None:
    # No snapshot lists a transaction that began after the last one that is complete.
    await fold(agentobs_database, EARLY)
    async with opened(agentobs_database) as first, opened(agentobs_database) as second:
        for number, writer in enumerate((first, second)):
            writer.add(decision(NOON + number * MINUTE))
            await writer.flush()
        assert not await fold(agentobs_database, LATER, [ROUTING])
        await first.commit()
        assert not await fold(agentobs_database, LATER, [ROUTING])
        await second.commit()

    assert await fold(agentobs_database, LATER)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


async def test_a_writer_of_one_table_does_not_hold_up_the_other(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON))
    async with opened(agentobs_database) as writer:
        await writer.execute(text("CREATE TABLE of_the_host (n integer)"))
        await writer.execute(text("INSERT INTO of_the_host VALUES (1)"))
        assert await fold(agentobs_database, LATER)
        await writer.rollback()


async def test_one_who_keeps_writing_does_not_keep_back_what_others_have_closed(
    agentobs_database: DatabaseSettings,
) -> None:
    await fold(agentobs_database, EARLY)
    async with opened(agentobs_database) as first:
        first.add(decision(NOON + MINUTE))
        await first.flush()
        assert not await fold(agentobs_database, NOON + 2 * HOUR, [ROUTING])
        await first.commit()
    # Each new close meets a new writer: what the last one closed is folded all the same.
    async with opened(agentobs_database) as second:
        second.add(decision(NOON + DAY))
        await second.flush()
        assert not await fold(agentobs_database, LATER, [ROUTING])
        async with connect(agentobs_database) as look:
            assert await folded_to(look) == NOON + HOUR
        await second.rollback()


async def test_writers_that_overlap_hold_up_no_table_for_ever(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON), run(NOON))
    async with opened(agentobs_database) as first, opened(agentobs_database) as second:
        first.add(decision(LATER + DAY))
        await first.flush()
        assert not await fold(agentobs_database, LATER)
        second.add(decision(LATER + DAY))
        await second.flush()
        await first.commit()
        assert not await fold(agentobs_database, LATER + HOUR)
        async with connect(agentobs_database) as look:
            for family in FAMILIES:
                assert await folded_to(look, family) >= LATER - HOUR
        await second.commit()


async def test_who_keeps_hours_back_is_named(agentobs_database: DatabaseSettings) -> None:
    await store_rows(agentobs_database, decision(NOON))
    async with opened(agentobs_database) as writer:
        writer.add(decision(NOON))
        await writer.flush()
        pid = (await writer.execute(text("SELECT pg_backend_pid()"))).scalar_one()

        with pytest.raises(MaintenanceBlockedError) as caught:
            await maintained(agentobs_database, patience_seconds=0)

        await writer.commit()
    (blocker,) = caught.value.blockers
    assert blocker.startswith(f"backend {pid} (")
    assert "idle in transaction" in blocker


async def test_one_who_keeps_marking_hours_keeps_no_run_busy(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON))
    await fold(agentobs_database)
    is_over = asyncio.Event()

    async def mark() -> None:
        async with connect(agentobs_database) as look:
            while not is_over.is_set():
                await look.execute(INTO_LEAF, {"key": uuid7_at(NOON), "instant": NOON})

    marking = asyncio.create_task(mark())
    for _ in range(3):
        assert await fold(agentobs_database)
    is_over.set()
    await marking
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


async def test_who_looks_at_the_tables_of_the_rollups_keeps_no_fold_back(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON))
    async with opened(agentobs_database) as host:
        await host.execute(text("ANALYZE agentobs_rollup_state"))
        await host.execute(text("ANALYZE agentobs_rollup_marks"))
        assert await fold(agentobs_database)
        await host.rollback()


async def test_a_reader_with_an_old_snapshot_gets_what_its_rows_say(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON), decision(NOON + HOUR))
    await fold(agentobs_database, NOON + HOUR + 10 * MINUTE)

    async with opened(agentobs_database, isolation_level="REPEATABLE READ") as reader:
        await begin(reader)
        await store_rows(agentobs_database, decision(NOON, 9), decision(NOON + HOUR, 9))
        await fold(agentobs_database, LATER)
        async with connect(agentobs_database) as look:
            await look.execute(text("DELETE FROM router_performance_metrics"))
        assert await differences(reader) == []


async def test_an_id_of_another_cluster_keeps_nothing_back(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON))
    async with connect(agentobs_database) as look:
        # As a dump has it that was taken between the closing of hours and their fold.
        await look.execute(
            text(
                "UPDATE agentobs_rollup_state SET closing = ARRAY['4611686018427387904'::xid8], "
                "closing_to = :until"
            ),
            {"until": NOON + HOUR},
        )

    assert await fold(agentobs_database, LATER)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []
