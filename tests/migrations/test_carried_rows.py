"""What revision 0005 does with the rows that are there: it carries them over, and back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.event_rows import (
    EVENTS,
    FEBRUARY,
    INSTANTS,
    MARCH,
    METRICS,
    PARENT_KEY,
    insert_child,
    insert_row,
    new_key_of,
    parent_of,
    partition_of,
    rows_of,
)

from agentobs import migrations
from agentobs.keys import instant_of, is_time_ordered, uuid7_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

    Step = Callable[[], Awaitable[None]]

# Values that a copy could change on its way, for the columns of both tables by name.
ODD_VALUES: dict[str, list[dict[str, object]]] = {
    EVENTS: [
        {"context_snapshot": "null", "context_keys": "{}", "user_request": ""},
        {"context_snapshot": None, "context_keys": '{NULL,"",a}', "user_request": None},
        {"context_snapshot": '{"n": 1e400, "m": 1.00, "big": 18446744073709551617}'},
        {"context_snapshot": '{"": {"é": "\\u2028\\ud83e\\udd80"}}', "target_agent": "Ünï 🦀"},
        {"context_keys": '{"a,b","c\\"d","NULL"}', "error_message": 'back\\slash "quote"\n\ttab'},
        {"context_keys": '[2:3]={"from","two"}', "success": "true", "quality_score": "0.0000"},
        {"quality_score": "0.0001", "routing_confidence": "1", "success": "false"},
        {"context_size_bytes": 2**31 - 1, "total_execution_duration_ms": -(2**31)},
        {"completed_at": "infinity", "started_at": "2024-03-31 23:59:59.999999+00"},
        {"completed_at": "-infinity", "started_at": "2024-02-29 00:00:00+00"},
        {"user_request": "x" * 100_000, "session_id": uuid4()},
    ],
    METRICS: [
        {"alternative_agents": "null", "feedback_details": None, "alternatives_count": None},
        {"alternative_agents": "[]", "feedback_details": '"text"', "feedback_provided": None},
        {"prediction_error": "-9.9999", "confidence_score": "1.0000", "cache_key": ""},
        {"validated_at": "infinity", "measured_at": "2024-02-29 23:59:59.999999+00"},
        {"selected_agent": "Ünï 🦀", "cache_age_seconds": -1, "trigger_confidence": "0"},
    ],
}


@pytest.fixture
def up(empty: DatabaseSettings) -> Step:
    return lambda: migrations.upgrade("0005", settings=empty)


@pytest.fixture
def down(empty: DatabaseSettings) -> Step:
    return lambda: migrations.downgrade("0004", settings=empty)


@pytest_asyncio.fixture
async def old(empty: DatabaseSettings, connection: AsyncConnection) -> AsyncConnection:
    """Yield a look into a database at 0003, whose ids are random."""
    await migrations.upgrade("0003", settings=empty)
    return connection


@pytest.mark.parametrize("table", ODD_VALUES)
async def test_every_value_of_a_row_is_carried_over(
    old: AsyncConnection, up: Step, table: str
) -> None:
    for values in ODD_VALUES[table]:
        await insert_row(old, table, **values)
    others = text(
        f"SELECT to_jsonb(t) - 'id' FROM (SELECT * FROM {table}) t ORDER BY {INSTANTS[table]}"
    )
    before = [str(row) for row in await old.scalars(others)]

    await up()

    assert [str(row) for row in await old.scalars(others)] == before


@pytest.mark.parametrize("table", ODD_VALUES)
async def test_a_downgrade_gives_the_rows_back_to_the_letter(
    old: AsyncConnection, up: Step, down: Step, table: str
) -> None:
    for values in ODD_VALUES[table]:
        await insert_row(old, table, **values)
    before = await rows_of(old, table)

    await up()
    await down()

    assert await rows_of(old, table) == before


@pytest.mark.parametrize("table", INSTANTS)
async def test_a_random_id_becomes_a_key_of_the_rows_instant(
    old: AsyncConnection, up: Step, table: str
) -> None:
    original = await insert_row(old, table, **{INSTANTS[table]: FEBRUARY})

    await up()

    key = await new_key_of(old, original, table)
    assert instant_of(key) == FEBRUARY
    assert await partition_of(old, key, table) == "y2024m02"


@pytest.mark.parametrize("table", INSTANTS)
async def test_a_key_that_holds_its_instant_is_kept_and_is_in_no_mapping(
    old: AsyncConnection, up: Step, table: str
) -> None:
    key = uuid7_at(FEBRUARY)
    await insert_row(old, table, id=key, **{INSTANTS[table]: FEBRUARY})

    await up()

    assert await partition_of(old, key, table) == "y2024m02"
    assert await old.scalar(text(f"SELECT count(*) FROM {table}_original_ids")) == 0


async def test_a_key_of_a_month_that_its_row_is_not_of_is_made_anew(
    old: AsyncConnection, up: Step
) -> None:
    original = await insert_row(old, id=uuid7_at(FEBRUARY), started_at=MARCH)

    await up()

    assert instant_of(await new_key_of(old, original)) == MARCH


async def test_a_key_of_a_clock_that_was_ahead_at_the_end_of_a_month_is_kept(
    old: AsyncConnection, up: Step
) -> None:
    began = FEBRUARY.replace(hour=23, minute=59)
    key = uuid7_at(began + timedelta(minutes=2))
    await insert_row(old, id=key, started_at=began)

    await up()

    assert await partition_of(old, key) == "y2024m03"


async def test_keys_made_of_rows_of_one_instant_differ(old: AsyncConnection, up: Step) -> None:
    for _ in range(50):
        await insert_row(old, started_at=FEBRUARY)

    await up()

    keys = set(await old.scalars(text(f"SELECT id FROM {EVENTS}")))
    assert len(keys) == 50
    assert all(is_time_ordered(key) for key in keys)


async def test_a_childs_link_goes_along_with_its_parents_new_id(
    old: AsyncConnection, up: Step
) -> None:
    parent = await insert_row(old, started_at=FEBRUARY)
    child = await insert_child(old, parent, started_at=MARCH)
    grandchild = await insert_child(old, child, started_at=FEBRUARY)

    await up()

    child, parent = await new_key_of(old, child), await new_key_of(old, parent)
    assert await parent_of(old, child) == parent
    assert await parent_of(old, await new_key_of(old, grandchild)) == child


async def test_a_link_from_a_random_id_to_a_time_ordered_one_is_kept(
    old: AsyncConnection, up: Step
) -> None:
    parent = uuid7_at(FEBRUARY)
    await insert_row(old, id=parent, started_at=FEBRUARY)
    child = await insert_child(old, parent, started_at=FEBRUARY)

    await up()

    assert await parent_of(old, await new_key_of(old, child)) == parent


async def test_events_that_are_parents_of_themselves_and_each_other_stay_so(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    own = uuid4()
    await insert_child(old, own, id=own)
    first = await insert_row(old, started_at=FEBRUARY)
    second = await insert_child(old, first, started_at=MARCH)
    await old.execute(
        text(f"UPDATE {EVENTS} SET parent_event_id = :second WHERE id = :first"),
        {"first": first, "second": second},
    )
    before = await rows_of(old)

    await up()

    keys = [await new_key_of(old, each) for each in (own, first, second)]
    assert [await parent_of(old, each) for each in keys] == [keys[0], keys[2], keys[1]]
    await down()
    assert await rows_of(old) == before


@pytest.mark.parametrize(
    "instant",
    ["-infinity", "infinity", "1969-12-31 23:59:59.999999+00", "9999-12-01", "290000-01-01"],
)
@pytest.mark.parametrize("table", INSTANTS)
async def test_a_row_of_an_instant_without_a_month_lies_in_default(
    old: AsyncConnection, up: Step, down: Step, table: str, instant: str
) -> None:
    original = await insert_row(old, table, **{INSTANTS[table]: instant})
    before = await rows_of(old, table)

    await up()

    assert await partition_of(old, await new_key_of(old, original, table), table) == "default"
    await down()
    assert await rows_of(old, table) == before


async def test_rows_written_at_head_keep_their_ids_on_the_way_down(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    original = await insert_row(old)
    await up()
    parent = await new_key_of(old, original)
    written = await insert_child(old, parent)

    await down()

    assert set(await old.scalars(text(f"SELECT id FROM {EVENTS}"))) == {original, written}
    assert await parent_of(old, written) == original


@pytest.mark.parametrize("table", INSTANTS)
async def test_an_upgrade_after_a_downgrade_makes_the_same_ids_again(
    old: AsyncConnection, up: Step, down: Step, table: str
) -> None:
    for instant in (FEBRUARY, MARCH, "infinity"):
        await insert_row(old, table, **{INSTANTS[table]: instant})
    await up()
    await insert_row(old, table)
    before = await rows_of(old, table)

    await down()
    await up()

    assert await rows_of(old, table) == before


async def test_a_downgrade_after_the_parent_is_deleted_needs_no_parent(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    parent = await insert_row(old)
    child = await insert_child(old, parent)
    await up()
    await old.execute(
        text(f"DELETE FROM {EVENTS} WHERE id = :key"), {"key": await new_key_of(old, parent)}
    )

    await down()

    assert await parent_of(old, child) is None


async def test_links_to_an_expired_parent_are_kept_under_a_key_that_is_not_valid(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    parent = await insert_row(old, started_at=FEBRUARY)
    child = await insert_child(old, parent, started_at=MARCH)
    await up()
    key = await new_key_of(old, parent)
    await old.execute(text(f"DROP TABLE {EVENTS}_y2024m02"))

    await down()

    assert await parent_of(old, child) in {key, parent}
    query = text("SELECT convalidated FROM pg_constraint WHERE conname = :name")
    assert await old.scalar(query, {"name": PARENT_KEY}) is False
    await up()
    assert await parent_of(old, await new_key_of(old, child)) in {key, parent}


async def test_an_original_id_that_was_written_again_is_that_rows_on_the_way_down(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    original = await insert_row(old)
    await up()
    await insert_row(old, id=original)
    key = await new_key_of(old, original)
    before = await rows_of(old)

    await down()

    assert await rows_of(old) == before
    assert {key, original} == set(await old.scalars(text(f"SELECT id FROM {EVENTS}")))


async def test_no_table_of_the_migration_itself_is_left(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    left = text(
        "SELECT relname FROM pg_class WHERE relname LIKE 'agentobs_old%' "
        "OR relname IN ('agentobs_carried', 'agentobs_partitions') OR relname LIKE '%_original_ids'"
    )
    await up()
    assert set(await old.scalars(left)) == {
        "agentobs_partitions",
        f"{EVENTS}_original_ids",
        f"{METRICS}_original_ids",
    }

    await down()

    assert (await old.scalars(left)).all() == []


async def test_the_hash_in_a_key_does_not_depend_on_the_rows_other_values(
    old: AsyncConnection, up: Step, down: Step
) -> None:
    original = await insert_row(old, started_at=FEBRUARY)
    await up()
    first: UUID = await new_key_of(old, original)
    await old.execute(text(f"UPDATE {EVENTS} SET success = true"))

    await down()
    await up()

    assert await new_key_of(old, original) == first
