"""Months expire, and what was known of their hours stays: until the rows come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update
from support.event_rows import METRICS
from support.maintenance import folds_left, letting_go, maintained
from support.rollups import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    decision,
    differences,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs import RouterPerformanceMetric, migrations
from agentobs.analytics import Window, agents, routing, routing_summary
from agentobs.errors import MaintenanceBlockedError
from agentobs.maintenance import Month, release, restore, retention
from agentobs.maintenance.archive import list_archives
from agentobs.maintenance.rollups import keep_rollups

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from agentobs import DatabaseSettings

MARCH = Month(2024, 3)
WINDOW = Window(NOON - 5 * DAY, NOON + 5 * DAY)
ROWS = 40


def rows() -> list[Any]:
    return [
        each
        for number in range(ROWS)
        for each in (
            decision(NOON + number * 20 * MINUTE, 100 + number, selected_agent="agent-a"),
            run(NOON + number * 20 * MINUTE, 100 + number, success=number % 4 != 0),
        )
    ]


async def answers(settings: DatabaseSettings, window: Window = WINDOW) -> list[Any]:
    async with opened(settings) as session:
        return [
            await routing_summary(session, window),
            await routing(session, window, HOUR),
            await routing(session, window, DAY),
            await agents(session, window),
        ]


async def test_what_was_known_of_a_month_outlives_its_rows(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database)
    before = await answers(agentobs_database)

    await maintained(agentobs_database, letting_go(MARCH))

    assert await answers(agentobs_database) == before
    assert before[0].decisions == ROWS
    async with connect(agentobs_database) as look:
        left = await look.execute(text(f"SELECT count(*) FROM {METRICS}"))
        assert left.scalar_one() == 0
    assert await folds_left(agentobs_database) == []
    await maintained(agentobs_database)
    assert await answers(agentobs_database) == before


async def test_a_month_that_was_never_folded_is_folded_before_it_goes(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    before = (await answers(agentobs_database))[0]

    await maintained(agentobs_database, letting_go(MARCH))

    after = (await answers(agentobs_database))[0]
    assert after.decisions == before.decisions == ROWS
    assert after.mean_total_us == before.mean_total_us


async def test_what_changed_last_is_folded_before_it_goes(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database)
    async with opened(agentobs_database) as session:
        await session.execute(update(RouterPerformanceMetric).values(total_routing_time_us=7))
        await session.commit()

    await maintained(agentobs_database, letting_go(MARCH))

    assert (await answers(agentobs_database))[0].mean_total_us == 7


async def test_a_month_that_changes_while_it_is_to_go_stays_until_the_next_run(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database)

    async def keep_and_change(*arguments: Any) -> None:
        await keep_rollups(*arguments)
        # After the look at the hours, and before the locks.
        await store_rows(agentobs_database, decision(NOON, 7), run(NOON, 7))

    monkeypatch.setattr(retention, "keep_rollups", keep_and_change)
    with pytest.raises(MaintenanceBlockedError, match="changed just now"):
        await maintained(agentobs_database, letting_go(MARCH))
    monkeypatch.undo()
    assert (await answers(agentobs_database))[0].decisions == ROWS + 2

    await maintained(agentobs_database, letting_go(MARCH))

    assert (await answers(agentobs_database))[0].decisions == ROWS + 2


async def test_late_rows_of_a_month_that_is_gone_are_added_and_kept_in_their_turn(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database, letting_go(MARCH))

    for number in (1, 2):
        await store_rows(agentobs_database, decision(NOON, 7), run(NOON, 7))
        for _ in range(2):
            summary, hours, days, table = await answers(agentobs_database)
            assert summary.decisions == ROWS + number
            assert sum(step.decisions for step in hours) == ROWS + number
            assert sum(step.decisions for step in days) == ROWS + number
            assert [row.executions for row in table] == [ROWS + number]
            await maintained(agentobs_database, letting_go(MARCH))


async def test_a_window_that_parts_an_hour_of_a_month_that_is_gone_leaves_it_out(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database, letting_go(MARCH))
    parted = Window(NOON + 30 * MINUTE, NOON + 90 * MINUTE)

    assert (await answers(agentobs_database, parted))[0].decisions == 0
    whole = Window(NOON, NOON + HOUR)
    assert (await answers(agentobs_database, whole))[0].decisions == 3


async def test_rows_that_come_back_take_the_place_of_what_was_kept(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database, letting_go(MARCH, archive=tmp_path))
    for manifest in list_archives(str(tmp_path)):
        await restore(manifest.location, settings=agentobs_database)

    for _ in range(2):
        assert (await answers(agentobs_database))[0].decisions == ROWS
        async with opened(agentobs_database) as session:
            assert await differences(session, WINDOW) == []
        await maintained(agentobs_database)

    await release("router_performance_metrics_y2024m03", settings=agentobs_database)
    await release("agent_transformation_events_y2024m03", settings=agentobs_database)
    await maintained(agentobs_database, letting_go(MARCH))
    assert (await answers(agentobs_database))[0].decisions == ROWS


async def test_only_what_comes_back_is_taken_out_of_what_was_kept(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database, letting_go(MARCH))
    late = [decision(NOON + number * MINUTE, 7, selected_agent="late") for number in range(3)]
    await store_rows(agentobs_database, *late, run(NOON, 7))
    await maintained(agentobs_database, letting_go(MARCH, archive=tmp_path))
    before = await answers(agentobs_database)
    assert before[0].decisions == ROWS + 3

    for manifest in list_archives(tmp_path):
        for _ in range(2):
            await restore(manifest.location, settings=agentobs_database)

    after = await answers(agentobs_database)
    assert after[0].decisions == ROWS + 3
    assert after[0].mean_total_us == before[0].mean_total_us
    assert [step.decisions for step in after[1]] == [step.decisions for step in before[1]]
    assert [step.decisions for step in after[2]] == [step.decisions for step in before[2]]
    assert [row.executions for row in after[3]] == [ROWS + 1]
    await maintained(agentobs_database)
    assert await answers(agentobs_database) == after


async def test_percentiles_are_known_of_what_is_left_when_some_rows_came_back(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await store_rows(agentobs_database, decision(NOON, 500))
    await maintained(agentobs_database, letting_go(MARCH))
    await store_rows(agentobs_database, decision(NOON, 900))
    await maintained(agentobs_database, letting_go(MARCH, archive=tmp_path))
    (archive,) = list_archives(tmp_path)
    await restore(archive.location, settings=agentobs_database)
    async with connect(agentobs_database) as look:
        await look.execute(text(f"DELETE FROM {METRICS}"))

    async with opened(agentobs_database) as session:
        (step,) = await routing(session, Window(NOON, NOON + HOUR), HOUR)

    assert (step.decisions, step.p50_total_us, step.p95_total_us) == (1, 500, 500)


async def test_rows_of_another_database_take_nothing_away(
    agentobs_database: DatabaseSettings,
    agentobs_empty_database: DatabaseSettings,
    tmp_path: Path,
) -> None:
    other = agentobs_empty_database
    await migrations.upgrade(settings=other)
    await store_rows(other, decision(NOON, 5, selected_agent="agent-z"))
    await maintained(other, letting_go(MARCH, archive=tmp_path))
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database, letting_go(MARCH))

    (archive,) = list_archives(tmp_path)
    await restore(archive.location, settings=agentobs_database)

    for _ in range(2):
        assert (await answers(agentobs_database))[0].decisions == ROWS + 1
        await maintained(agentobs_database)


async def test_hours_stay_folded_when_the_payload_of_their_month_goes(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database)
    await maintained(agentobs_database)

    await maintained(agentobs_database, letting_go(MARCH, "keep_payload"))

    assert await folds_left(agentobs_database) == []
    async with opened(agentobs_database) as session:
        assert await differences(session, WINDOW) == []
    await store_rows(agentobs_database, decision(NOON, 7))
    async with opened(agentobs_database) as session:
        assert await differences(session, WINDOW) == []


async def test_what_was_kept_outlasts_a_downgrade_and_the_next_upgrade(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows(), decision(NOON - 40 * DAY))
    await maintained(agentobs_database)
    await maintained(agentobs_database, letting_go(MARCH))
    before = await answers(agentobs_database)

    await migrations.downgrade("0007", settings=agentobs_database)
    await migrations.upgrade(settings=agentobs_database)

    assert [(await answers(agentobs_database))[0].decisions] == [before[0].decisions]
    await maintained(agentobs_database)
    assert await answers(agentobs_database) == before


async def test_a_month_stays_while_its_triggers_are_off(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, *rows())
    await maintained(agentobs_database)
    async with connect(agentobs_database) as look:
        await look.execute(text(f"ALTER TABLE {METRICS} DISABLE TRIGGER USER"))

        with pytest.raises(MaintenanceBlockedError, match="enable the triggers"):
            await maintained(agentobs_database, letting_go(MARCH))

        left = await look.execute(text(f"SELECT count(*) FROM {METRICS}"))
        assert left.scalar_one() == ROWS
