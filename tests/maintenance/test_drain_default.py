"""Rows that came without a partition get theirs; what no month takes stays, and is told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from support.event_rows import (
    EVENTS,
    METRICS,
    insert_child,
    new_key_of,
    parent_of,
    partition_of,
)
from support.maintenance import (
    FEBRUARY,
    MARCH,
    Told,
    add_row,
    add_rows,
    letting_go,
    maintained,
    middle_of,
    of_months,
    partitions_of,
    steps_left,
    texts_in,
)
from support.server_versions import needs_server
from support.shell import connect_in_transaction

from agentobs.keys import uuid7_at
from agentobs.maintenance import draining

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

LATER = datetime(2025, 7, 1, tzinfo=UTC)


def random_id_in(month_of: datetime) -> UUID:
    """Return a random id whose first bits are those of an instant by chance."""
    key = uuid7_at(month_of)
    return UUID(int=key.int & ~(0xF << 76) | 4 << 76)


@pytest.mark.parametrize("table", [EVENTS, METRICS])
async def test_rows_in_default_move_into_the_partition_of_their_month(
    agentobs_database: DatabaseSettings, look: AsyncConnection, table: str
) -> None:
    keys = [*await add_rows(look, FEBRUARY, 3, table), *await add_rows(look, MARCH, 2, table)]
    before = await texts_in(look, table)

    plan = await maintained(agentobs_database)

    assert [step.partition(", ")[0] for step in of_months(plan.steps)] == [
        f"make {table}_{FEBRUARY.suffix}",
        f"make {table}_{MARCH.suffix}",
    ]
    found = [await partition_of(look, key, table) for key in keys]
    assert found == [FEBRUARY.suffix] * 3 + [MARCH.suffix] * 2
    assert await texts_in(look, table) == before
    assert await texts_in(look, f"{table}_default") == []


async def test_a_second_run_has_nothing_to_do(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 2)
    await add_row(look, LATER, id=random_id_in(middle_of(FEBRUARY)))
    await maintained(agentobs_database)

    assert await steps_left(agentobs_database) == []


async def test_a_row_in_the_way_of_a_month_gets_another_id_and_its_children_follow(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    foreign = await add_row(look, LATER, id=random_id_in(middle_of(FEBRUARY)), user_request="why")
    child = await insert_child(look, foreign)
    late_child = await insert_child(look, foreign, id=uuid7_at(LATER), started_at=LATER)
    await add_row(look, middle_of(FEBRUARY))

    plan = await maintained(agentobs_database)

    assert "give 1 rows in its way another id" in str(plan.steps[0])
    key = await new_key_of(look, foreign)
    assert await partition_of(look, key) == "default"
    assert [await parent_of(look, each) for each in (child, late_child)] == [key, key]
    request = text(f"SELECT user_request FROM {EVENTS} WHERE id = :key")
    assert await look.scalar(request, {"key": key}) == "why"


async def test_a_foreign_id_is_in_nobodys_way_where_no_row_needs_the_month(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    foreign = await add_row(look, LATER, id=random_id_in(middle_of(FEBRUARY)))

    plan = await maintained(agentobs_database)

    assert of_months(plan.steps) == []
    assert plan.notes[0].startswith(f"1 rows stay in {EVENTS}_default")
    assert await partition_of(look, foreign) == "default"


@pytest.mark.parametrize(
    "values",
    [
        {"id": uuid4()},
        {"id": UUID("ffffffff-ffff-4fff-bfff-ffffffffffff")},
        {"id": UUID(int=0)},
        {"started_at": "infinity"},
        {"started_at": "-infinity"},
        {"started_at": "0044-03-15 00:00:00+00 BC"},
        {"started_at": "1969-12-30 00:00:00+00"},
        {"started_at": "10000-01-01 00:00:00+00", "id": "e677d21f-dc00-7000-8000-000000000001"},
    ],
)
async def test_a_row_of_no_month_stays_is_told_of_and_is_never_work_again(
    agentobs_database: DatabaseSettings, look: AsyncConnection, values: dict[str, Any]
) -> None:
    await add_row(look, middle_of(FEBRUARY), **values)
    before = await texts_in(look)

    for _ in range(2):
        plan = await maintained(agentobs_database)
        assert of_months(plan.steps) == []
        assert "1 rows stay in" in plan.notes[0]

    assert await texts_in(look, f"{EVENTS}_default") == before


async def test_the_hosts_columns_come_along(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    for column in (
        'dropped text, ADD COLUMN "a:b %s {c}" text',
        "shout text GENERATED ALWAYS AS (upper(target_agent)) STORED",
    ):
        await look.exec_driver_sql(f"ALTER TABLE {METRICS} ADD COLUMN {_of_metrics(column)}")
    await look.execute(text(f"ALTER TABLE {METRICS} DROP COLUMN dropped"))
    await add_rows(look, FEBRUARY, 3, METRICS, selected_agent="agent-x")
    before = await texts_in(look, METRICS)

    await maintained(agentobs_database)
    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload"))

    assert await texts_in(look, METRICS) == before
    assert "AGENT-X" in before[0]


async def test_the_hosts_identity_goes_on_counting(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await needs_server(look, 17, "a partitioned table has identity columns")
    identity = "number integer GENERATED ALWAYS AS IDENTITY"
    await look.exec_driver_sql(f"ALTER TABLE {METRICS} ADD COLUMN {identity}")
    await add_rows(look, FEBRUARY, 3, METRICS)
    before = await texts_in(look, METRICS)

    await maintained(agentobs_database)
    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload"))

    assert await texts_in(look, METRICS) == before
    await add_rows(look, FEBRUARY, 1, METRICS)
    numbers = await look.scalars(text(f"SELECT number FROM {METRICS} ORDER BY 1"))
    assert list(numbers) == [1, 2, 3, 4]


def _of_metrics(column: str) -> str:
    return column.replace("target_agent", "selected_agent")


async def test_rows_that_change_or_come_or_go_after_they_were_copied_are_what_they_are_now(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, deleted, _ = await add_rows(look, FEBRUARY, 3, user_request="before")

    async def copy_and_go_on(run: Run, part: MonthPartition) -> None:
        await draining.copy_ahead(run, part)
        await look.execute(
            text(f"UPDATE {EVENTS} SET user_request = 'after' WHERE id = '{changed}'")
        )
        await look.execute(text(f"DELETE FROM {EVENTS} WHERE id = '{deleted}'"))
        await add_row(look, MARCH.first - timedelta(seconds=1), user_request="new")

    monkeypatch.setattr("agentobs.maintenance.partitions.copy_ahead", copy_and_go_on)
    await maintained(agentobs_database)

    requests = await look.scalars(text(f"SELECT user_request FROM {EVENTS} ORDER BY id"))
    assert list(requests) == ["after", "before", "new"]
    assert await texts_in(look, f"{EVENTS}_default") == []


async def test_a_definition_that_an_event_names_can_not_go_while_its_row_is_moved(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    definition = await look.scalar(
        text(
            "INSERT INTO agent_definitions (agent_name, agent_type, yaml_config) "
            "VALUES ('a', 'x', '{}') RETURNING id"
        )
    )
    await add_row(look, middle_of(FEBRUARY), agent_definition_id=definition)
    watcher = Told()

    async with connect_in_transaction(agentobs_database) as other:
        # It waits for nobody, and is rolled back.
        await other.execute(text("LOCK TABLE agent_definitions IN ACCESS SHARE MODE"))
        await maintained(agentobs_database, watcher=watcher)

    assert watcher.blockers == []
    keys = text(
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated "
        f"AND conrelid = '{EVENTS}_{FEBRUARY.suffix}'::regclass"
    )
    assert await look.scalar(keys) == 1


async def test_progress_is_told_of_while_many_rows_are_moved(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "_CHUNK", 2)
    await add_rows(look, FEBRUARY, 5)
    watcher = Told()

    await maintained(agentobs_database, watcher=watcher)

    assert watcher.progress == [(2, 5), (4, 5), (5, 5)]
    assert f"{EVENTS}_{FEBRUARY.suffix}" in await partitions_of(look)
