"""Months that should be gone, and why they are not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import findings_of, fix
from support.event_rows import EVENTS, METRICS
from support.maintenance import FEBRUARY, JANUARY, add_rows, letting_go, maintained, partitions_of

from agentobs.doctor import Severity, Thresholds
from agentobs.errors import InvalidValueError
from agentobs.maintenance import restore

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

DAYS = timedelta(days=1)


async def test_where_nothing_ever_expired_old_months_are_right(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database)

    assert await findings_of("retention", agentobs_database) == []


async def test_months_older_than_what_is_kept_are_let_go(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_rows(hand, JANUARY, 1)
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database)

    (late,) = await findings_of("retention", agentobs_database, keep=90 * DAYS)

    assert (late.subject, late.severity) == (EVENTS, Severity.WARNING)
    assert late.words.startswith(f"2 months ({JANUARY} to {FEBRUARY}) of {EVENTS} should be gone")
    assert "lost without --archive" in late.words
    fix(agentobs_database, [late])
    assert await findings_of("retention", agentobs_database, keep=90 * DAYS) == []
    assert f"{EVENTS}_{JANUARY.suffix}" not in await partitions_of(hand)


async def test_payload_older_than_what_is_kept_is_let_go(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_rows(hand, FEBRUARY, 1, context_snapshot="{}")
    await maintained(agentobs_database)

    (late,) = await findings_of("retention", agentobs_database, keep_payload=14 * DAYS)

    assert "should have lost context_snapshot and user_request" in late.words
    fix(agentobs_database, [late])
    assert await findings_of("retention", agentobs_database, keep_payload=14 * DAYS) == []


async def test_a_month_before_one_that_has_expired_goes_the_same_way(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    await add_rows(hand, JANUARY, 1)
    await maintained(agentobs_database)

    (late,) = await findings_of("retention", agentobs_database)

    assert late.words.startswith(f"month {JANUARY} of {EVENTS} should be gone")
    fix(agentobs_database, [late])
    assert await findings_of("retention", agentobs_database) == []
    # Where those before it were archived.
    assert (tmp_path / f"{EVENTS}_{JANUARY.suffix}.parquet").exists()


async def test_a_month_that_was_brought_back_is_told_of_until_it_is_released(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    partition = f"{EVENTS}_{FEBRUARY.suffix}"
    await restore(str(tmp_path / f"{partition}.parquet"), settings=agentobs_database)

    (restored,) = await findings_of("retention", agentobs_database, keep=90 * DAYS)

    assert (restored.subject, restored.severity) == (partition, Severity.NOTICE)
    fix(agentobs_database, [restored])
    (late,) = await findings_of("retention", agentobs_database, keep=90 * DAYS)
    assert late.severity is Severity.WARNING


@pytest.mark.parametrize("keep", [None, 90 * DAYS])
async def test_a_key_of_the_host_that_keeps_months_is_named(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, keep: timedelta | None
) -> None:
    await hand.execute(
        text(f'CREATE TABLE "their notes" (metric uuid REFERENCES {METRICS}, note text)')
    )

    (found,) = await findings_of("retention", agentobs_database, keep=keep)

    assert found.severity is (Severity.WARNING if keep else Severity.NOTICE)
    assert f"no month of {METRICS} can go" in found.words
    fix(agentobs_database, [found])
    assert await findings_of("retention", agentobs_database, keep=keep) == []


@pytest.mark.parametrize(
    "ages",
    [{"keep": timedelta(hours=1)}, {"keep": 14 * DAYS, "keep_payload": 14 * DAYS}],
    ids=["too short", "payload as long"],
)
def test_ages_that_maintenance_would_refuse_are_refused(ages: dict[str, timedelta]) -> None:
    with pytest.raises(InvalidValueError):
        Thresholds(**ages)
