"""Hours that are not folded, and partitions whose changes nobody would know of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import findings_of, fix
from support.event_rows import EVENTS, METRICS
from support.maintenance import FEBRUARY, add_row, add_rows, maintained

from agentobs.doctor import Severity

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

HOUR = timedelta(hours=1)


async def test_hours_that_nobody_has_folded_for_long_are_folded(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_row(hand, datetime.now(UTC) - 3 * HOUR, METRICS)

    (young,) = await findings_of("rollups", agentobs_database)
    (old,) = await findings_of("rollups", agentobs_database, rollup_lag=HOUR)

    assert (young.subject, young.severity) == (METRICS, Severity.NOTICE)
    assert "hours of router_performance_metrics are not folded from" in young.words
    assert old.severity is Severity.WARNING
    fix(agentobs_database, [old])
    assert await findings_of("rollups", agentobs_database, rollup_lag=HOUR) == []


async def test_an_hour_that_is_open_lacks_nothing(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_row(hand, datetime.now(UTC), METRICS)

    assert await findings_of("rollups", agentobs_database) == []


async def test_hours_that_changed_are_counted_and_folded_anew(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    instant = datetime.now(UTC) - 24 * HOUR
    await add_row(hand, instant)
    await maintained(agentobs_database)
    for hours in range(3):
        await add_row(hand, instant - hours * HOUR)

    (few,) = await findings_of("rollups", agentobs_database)
    (many,) = await findings_of("rollups", agentobs_database, dirty_hours=2)

    assert few.words.startswith(f"3 hours of {EVENTS} changed since")
    assert (few.severity, many.severity) == (Severity.NOTICE, Severity.WARNING)
    fix(agentobs_database, [few])
    assert await findings_of("rollups", agentobs_database) == []


async def test_a_partition_that_was_rewritten_is_told_of(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database)
    await hand.execute(text(f"VACUUM FULL {EVENTS}_{FEBRUARY.suffix}"))

    (rewritten,) = await findings_of("rollups", agentobs_database)

    assert "came, went or were rewritten" in rewritten.words
    fix(agentobs_database, [rewritten])
    assert await findings_of("rollups", agentobs_database) == []


@pytest.mark.parametrize("where", ["root", "leaf"])
async def test_a_trigger_that_is_off_is_put_on_again(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, where: str
) -> None:
    table = EVENTS if where == "root" else f"{EVENTS}_default"
    trigger = f"trigger_{EVENTS}_rollups_deleted"
    await hand.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"))

    found = await findings_of("rollups", agentobs_database)

    unwatched = [each for each in found if each.severity is Severity.WARNING]
    assert len(unwatched) == 1
    assert "lack a trigger of the rollups, or it is off" in unwatched[0].words
    fix(agentobs_database, unwatched)
    fix(agentobs_database, await findings_of("rollups", agentobs_database))
    assert await findings_of("rollups", agentobs_database) == []
