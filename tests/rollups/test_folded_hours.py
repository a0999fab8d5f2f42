"""Closed hours are folded, and whoever asks gets what the rows say, in fewer of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
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
    folded_to,
    folder,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs.analytics import Window, agents, routing, routing_summary
from agentobs.errors import ConflictError
from agentobs.rollups import FAMILIES, backlog_of
from agentobs.rollups.folding import HOURS_A_STEP
from agentobs.rollups.tables import DECISIONS, EXECUTIONS

if TYPE_CHECKING:
    from agentobs import DatabaseSettings


def day_of_decisions() -> list[object]:
    return [
        decision(
            NOON - 12 * HOUR + number * 7 * MINUTE,
            number * 997 % 150_000,
            selected_agent=f"agent-{number % 3}",
            cache_lookup_us=number * 13,
            cache_hit=number % 2 == 0,
            cache_age_seconds=number,
        )
        for number in range(200)
    ]


async def test_hours_that_have_closed_are_folded_and_later_ones_are_not(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON), decision(NOON + HOUR))

    await fold(agentobs_database, NOON + HOUR + 10 * MINUTE)

    async with connect(agentobs_database) as look:
        assert await folded_to(look) == NOON + HOUR
        hours = select(DECISIONS.c.begins_at, DECISIONS.c.is_total).where(~DECISIONS.c.is_day)
        rows = (await look.execute(hours.order_by(DECISIONS.c.is_total))).all()
    assert [tuple(row) for row in rows] == [(NOON, False), (NOON, True)]


async def test_an_hour_stays_open_for_five_minutes_after_its_end(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON))

    await fold(agentobs_database, NOON + HOUR + 4 * MINUTE)

    async with connect(agentobs_database) as look:
        assert await folded_to(look) == NOON


async def test_hours_to_come_are_not_closed_whatever_the_callers_clock_says(
    agentobs_database: DatabaseSettings,
) -> None:
    await fold(agentobs_database, datetime.now(UTC) + 30 * DAY)

    async with connect(agentobs_database) as look:
        assert await folded_to(look) <= datetime.now(UTC)


async def test_answers_are_those_of_the_rows(agentobs_database: DatabaseSettings) -> None:
    runs = [
        run(
            NOON + number * 11 * MINUTE,
            number * 31,
            target_agent=f"agent-{number % 4}",
            success=number % 5 != 0,
            quality_score=number % 10 / 10,
        )
        for number in range(300)
    ]
    await store_rows(agentobs_database, *day_of_decisions(), *runs)

    assert await fold(agentobs_database)

    async with opened(agentobs_database) as session:
        for window in (
            EVERYTHING,
            Window(NOON - 3 * HOUR - 17 * MINUTE, NOON + 2 * HOUR + 23 * MINUTE),
            Window(NOON, NOON + HOUR),
            Window(NOON - 30 * MINUTE, NOON + 30 * MINUTE),
            Window(NOON - 12 * HOUR, NOON + 12 * HOUR),
        ):
            assert await differences(session, window) == []


async def test_answers_come_from_the_rollups_and_not_from_the_rows(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *day_of_decisions(), run(NOON))
    await fold(agentobs_database)

    async with connect(agentobs_database) as look:
        # What nobody would write: it shows where an answer comes from.
        await look.execute(DECISIONS.update().values(decisions=DECISIONS.c.decisions * 1000))
        await look.execute(EXECUTIONS.update().values(executions=EXECUTIONS.c.executions * 1000))
    async with opened(agentobs_database) as session:
        assert (await routing_summary(session, EVERYTHING)).decisions == 200_000
        steps = await routing(session, EVERYTHING, HOUR)
        assert sum(step.decisions for step in steps) == 200_000
        assert [row.executions for row in await agents(session, EVERYTHING)] == [1000]


async def test_percentiles_of_an_hour_are_exact(agentobs_database: DatabaseSettings) -> None:
    times = [10_007, 10_009, 10_037, 10_039]
    await store_rows(agentobs_database, *(decision(NOON, each) for each in times))
    await fold(agentobs_database)

    async with opened(agentobs_database) as session:
        (step,) = await routing(session, Window(NOON, NOON + HOUR), HOUR)

    assert (step.p50_total_us, step.p95_total_us, step.p99_total_us) == (10_009, 10_039, 10_039)


async def test_one_row_of_an_agent_has_its_own_time(agentobs_database: DatabaseSettings) -> None:
    await store_rows(agentobs_database, run(NOON, 12_345), run(NOON, 10, target_agent="agent-b"))
    await fold(agentobs_database)

    async with opened(agentobs_database) as session:
        found = await agents(session, EVERYTHING)

    assert [row.p95_duration_ms for row in found] == [12_345, 10]


async def test_days_are_made_of_hours_and_only_of_whole_ones(
    agentobs_database: DatabaseSettings,
) -> None:
    rows = [decision(NOON + number * 6 * HOUR) for number in range(5)]
    await store_rows(agentobs_database, *rows)
    days = select(DECISIONS.c.begins_at, DECISIONS.c.decisions).where(
        DECISIONS.c.is_day, DECISIONS.c.is_total
    )

    async with connect(agentobs_database) as look:
        for now, expected in (
            (NOON + 11 * HOUR, []),
            (NOON + 12 * HOUR + 5 * MINUTE, [(NOON - 12 * HOUR, 2)]),
            (NOON + 36 * HOUR + 5 * MINUTE, [(NOON - 12 * HOUR, 2), (NOON + 12 * HOUR, 3)]),
        ):
            await fold(agentobs_database, now)
            found = (await look.execute(days.order_by(DECISIONS.c.begins_at))).all()
            assert [tuple(row) for row in found] == expected


async def test_many_hours_are_folded_in_several_steps(agentobs_database: DatabaseSettings) -> None:
    count = HOURS_A_STEP * 2 + 3
    await store_rows(
        agentobs_database, *(decision(NOON + number * HOUR) for number in range(count))
    )
    now = NOON + (count + 1) * HOUR

    assert await fold(agentobs_database, now)

    async with opened(agentobs_database) as session:
        assert await differences(session, Window(NOON, now)) == []
        hours = select(func.count()).where(DECISIONS.c.is_total, ~DECISIONS.c.is_day)
        assert (await session.execute(hours)).scalar_one() == count


async def test_a_key_of_another_version_lies_in_the_hour_that_its_order_says(
    agentobs_database: DatabaseSettings,
) -> None:
    # Below the least UUIDv7 of 12:00, though its first 48 bits are of 12:00.
    milliseconds = round(NOON.timestamp() * 1000)
    key = f"{milliseconds:012x}4000" + "8" + "0" * 15
    async with connect(agentobs_database) as look:
        await look.execute(
            text(
                "INSERT INTO router_performance_metrics (id, metric_type, measured_at) "
                "VALUES (CAST(:key AS uuid), 'x', :instant)"
            ),
            {"key": key, "instant": NOON},
        )
    await fold(agentobs_database)

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
        before = await routing_summary(session, Window(NOON - HOUR, NOON))
    assert before.decisions == 1


async def test_the_week_with_which_1970_begins_is_a_step(
    agentobs_database: DatabaseSettings,
) -> None:
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    await store_rows(agentobs_database, decision(begin + HOUR))
    window = Window(begin, begin + 9 * DAY)

    async with opened(agentobs_database) as session:
        for _ in range(2):
            steps = await routing(session, window, 7 * DAY)
            assert [step.decisions for step in steps] == [1, 0]
            assert not steps[0].is_whole
            await fold(agentobs_database)


async def test_nothing_is_left_to_do_after_a_fold(agentobs_database: DatabaseSettings) -> None:
    await store_rows(agentobs_database, decision(NOON), run(NOON))
    async with folder(agentobs_database) as store:
        before = [await backlog_of(store, family, LATER) for family in FAMILIES]
    await fold(agentobs_database)

    async with folder(agentobs_database) as store:
        after = [await backlog_of(store, family, LATER) for family in FAMILIES]
    assert [bool(backlog) for backlog in before] == [True, True]
    assert before[0].closed_to == LATER - HOUR
    assert [bool(backlog) for backlog in after] == [False, False]


async def test_who_folds_keeps_another_one_away_without_a_wait(
    agentobs_database: DatabaseSettings,
) -> None:
    async with folder(agentobs_database) as store, store.alone():
        with pytest.raises(ConflictError):
            await fold(agentobs_database)
