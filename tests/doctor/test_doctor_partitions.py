"""Months that are not there in time, and rows that no month took."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import text
from support.doctor import examined, findings_of, fix, worse_than_a_notice
from support.event_rows import EVENTS, METRICS, insert_child, insert_row, parent_of, partition_of
from support.maintenance import FEBRUARY, add_row, add_rows, middle_of

from agentobs.doctor import Severity, partitions
from agentobs.maintenance import Month
from agentobs.maintenance.tables import DETACHED

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

NOW = Month.of(datetime.now(UTC))
NEXT, IN_TWO = NOW.next(), NOW.next().next()
OF_NO_TIME = UUID("00000000-0000-4000-8000-000000000000")


async def drop(hand: AsyncConnection, month: Month, table: str = EVENTS) -> None:
    await hand.execute(text(f"DROP TABLE {table}_{month.suffix}"))


@pytest.mark.parametrize("table", [EVENTS, METRICS])
async def test_a_month_that_is_missing_ahead_is_made(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, table: str
) -> None:
    await drop(hand, IN_TWO, table)

    (missing,) = await findings_of("partitions", agentobs_database)

    assert (missing.subject, missing.severity) == (table, Severity.WARNING)
    assert f"no partition for {IN_TWO}: from then on" in missing.words
    fix(agentobs_database, [missing])
    assert await findings_of("partitions", agentobs_database) == []


async def test_how_many_months_should_be_ahead_is_for_the_operator_to_say(
    agentobs_database: DatabaseSettings,
) -> None:
    assert await findings_of("partitions", agentobs_database, months_ahead=3) == []
    assert len(await findings_of("partitions", agentobs_database, months_ahead=4)) == 2


async def test_a_month_that_is_missing_now_is_told_with_what_happens_to_its_rows(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await drop(hand, NOW)
    await drop(hand, NEXT)

    (missing,) = await findings_of("partitions", agentobs_database)

    assert f"{NOW}, {NEXT}: rows of now go to DEFAULT" in missing.words


async def test_what_a_broken_run_has_left_is_for_the_next_run(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    name = f"{EVENTS}_{FEBRUARY.suffix}"
    await hand.execute(text(f"CREATE TABLE {name} (LIKE {EVENTS})"))
    await hand.execute(text(f"COMMENT ON TABLE {name} IS '{DETACHED}'"))
    await hand.execute(text(f"CREATE TABLE {METRICS}_{FEBRUARY.suffix}_restoration ()"))

    found = await findings_of("partitions", agentobs_database)

    assert [finding.subject for finding in found] == [EVENTS, METRICS]
    assert f"drop {name}, which has been detached" in found[0].words
    fix(agentobs_database, found[:1])
    assert await findings_of("partitions", agentobs_database) == []


async def test_a_table_that_has_the_name_of_a_month_is_given_another_one(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await drop(hand, NEXT)
    await hand.execute(text(f"CREATE TABLE {EVENTS}_{NEXT.suffix} (note text)"))

    (in_the_way,) = await findings_of("partitions", agentobs_database)

    assert "a table that is no partition has the name" in in_the_way.words
    fix(agentobs_database, [in_the_way])
    fix(agentobs_database, await findings_of("partitions", agentobs_database))
    assert await findings_of("partitions", agentobs_database) == []


@pytest.mark.parametrize("what", ["DROP CONSTRAINT", "not valid"])
async def test_a_month_gets_its_check_again(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, what: str
) -> None:
    leaf, instant = f"{METRICS}_{NEXT.suffix}", "measured_at"
    await hand.execute(text(f"ALTER TABLE {leaf} DROP CONSTRAINT {leaf}_{instant}_check"))
    if what == "not valid":
        (lacking,) = await findings_of("month_constraints", agentobs_database)
        assert lacking.fix is not None
        await hand.execute(text(lacking.fix.splitlines()[0].replace(":", r"\:")))

    (found,) = await findings_of("month_constraints", agentobs_database)

    assert found.subject == leaf
    assert ("lacks" in found.words) == (what == "DROP CONSTRAINT")
    fix(agentobs_database, [found])
    assert await findings_of("month_constraints", agentobs_database) == []


async def test_rows_in_default_are_counted_and_moved(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await add_rows(hand, FEBRUARY, 3)

    (few,) = await findings_of("default", agentobs_database)
    (many,) = await findings_of("default", agentobs_database, default_rows=2)

    assert (few.subject, few.severity) == (f"{EVENTS}_default", Severity.NOTICE)
    assert few.words.startswith("3 rows are in")
    assert many.severity is Severity.WARNING
    fix(agentobs_database, [few])
    assert await findings_of("default", agentobs_database) == []


async def test_of_many_rows_in_default_no_more_are_looked_at_than_tell_it(
    agentobs_database: DatabaseSettings,
    hand: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await add_rows(hand, FEBRUARY, 4)
    monkeypatch.setattr(partitions, "MOST_COUNTED", 2)

    (found,) = await findings_of("default", agentobs_database)

    assert found.words.startswith("more than 2 rows")


async def test_rows_with_keys_of_no_time_get_others_with_their_families(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    instant = middle_of(FEBRUARY)
    grandparent = await add_row(hand, instant)
    parent = await insert_child(hand, grandparent, id=OF_NO_TIME, started_at=instant)
    stray = await insert_child(hand, parent, id=UUID(int=OF_NO_TIME.int + 1), started_at=instant)
    child = await insert_child(hand, stray)
    await insert_row(hand, METRICS, id=OF_NO_TIME, measured_at=instant)

    found = await findings_of("default", agentobs_database)

    staying = [finding for finding in found if "stay in" in finding.words]
    assert [finding.words.split()[0] for finding in staying] == ["2", "1"]
    fix(agentobs_database, staying)
    fix(agentobs_database, (await findings_of("default", agentobs_database))[:1])
    assert await findings_of("default", agentobs_database) == []
    new_stray = await parent_of(hand, child)
    new_parent = await parent_of(hand, new_stray)
    assert await parent_of(hand, new_parent) == grandparent
    assert await partition_of(hand, new_parent) == FEBRUARY.suffix


async def test_a_row_of_no_month_is_known_and_stays(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await insert_row(hand, id=OF_NO_TIME, started_at="infinity")

    (found,) = await findings_of("default", agentobs_database)

    fix(agentobs_database, [found])
    assert await findings_of("default", agentobs_database) == [found]
    assert worse_than_a_notice(await examined(agentobs_database)) == []
