"""A row that is written, changed or deleted in a closed hour marks it; no other row marks any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import delete, text, update
from support.rollups import (
    DAY,
    HOUR,
    LATER,
    MINUTE,
    NOON,
    decision,
    differences,
    fold,
    folder,
    marked,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs import AgentTransformationEvent, RouterPerformanceMetric, migrations
from agentobs.keys import uuid7_at
from agentobs.rollups import EXECUTION, ROUTING, backlog_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

Metric, Event = RouterPerformanceMetric, AgentTransformationEvent
INSERT = text(
    "INSERT INTO router_performance_metrics (id, metric_type, measured_at) "
    "VALUES (:key, 'x', :instant)"
)


@pytest_asyncio.fixture
async def look(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into a database whose hours have closed, with a row of each table at noon."""
    await store_rows(agentobs_database, decision(NOON), run(NOON))
    await fold(agentobs_database)
    async with connect(agentobs_database) as found:
        yield found


async def test_a_row_in_a_closed_hour_marks_it(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await store_rows(agentobs_database, decision(NOON + DAY + MINUTE), run(NOON - 5 * HOUR))

    assert await marked(look, ROUTING) == [NOON + DAY]
    assert await marked(look, EXECUTION) == [NOON - 5 * HOUR]


async def test_a_row_in_an_open_hour_marks_nothing(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await store_rows(agentobs_database, decision(LATER), run(datetime.now(UTC)))

    assert await marked(look, ROUTING) == await marked(look, EXECUTION) == []


async def test_an_hour_begins_with_the_first_key_of_it(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    last = NOON + HOUR - MINUTE / 60_000_000
    await store_rows(agentobs_database, decision(NOON + HOUR), decision(last))

    assert await marked(look) == [NOON, NOON + HOUR]


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Metric, {"selected_agent": "agent-b"}),
        (Metric, {"total_routing_time_us": 5}),
        (Metric, {"total_routing_time_us": None}),
        (Metric, {"cache_lookup_us": 5}),
        (Metric, {"trigger_matching_us": 5}),
        (Metric, {"confidence_scoring_us": 5}),
        (Metric, {"cache_hit": True}),
        (Metric, {"cache_age_seconds": 5}),
        (Event, {"target_agent": "agent-b"}),
        (Event, {"success": None}),
        (Event, {"total_execution_duration_ms": 5}),
        (Event, {"quality_score": 0.5}),
    ],
)
async def test_a_change_of_what_is_added_up_marks_the_hour(
    look: AsyncConnection, model: Any, values: dict[str, Any]
) -> None:
    await look.execute(update(model).values(values))

    assert await marked(look, ROUTING if model is Metric else EXECUTION) == [NOON]


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (
            Metric,
            {"actual_success": True, "actual_quality_score": 0.5, "selection_validated": True},
        ),
        (Metric, {"feedback_provided": True, "feedback_type": "positive"}),
        (Metric, {"total_routing_time_us": Metric.total_routing_time_us}),
        (Event, {"error_message": "no", "context_snapshot": {"a": 1}}),
    ],
)
async def test_a_change_of_anything_else_marks_nothing(
    look: AsyncConnection, model: Any, values: dict[str, Any]
) -> None:
    await look.execute(update(model).values(values))

    assert await marked(look, ROUTING) == await marked(look, EXECUTION) == []


async def test_a_row_that_moves_marks_the_hour_that_it_leaves_and_the_one_it_comes_to(
    look: AsyncConnection,
) -> None:
    there = NOON + 3 * HOUR
    await look.execute(update(Metric).values(id=uuid7_at(there), measured_at=there))

    assert await marked(look) == [NOON, there]


async def test_a_row_that_moves_out_of_a_closed_hour_into_an_open_one_marks_the_first(
    look: AsyncConnection,
) -> None:
    there = datetime.now(UTC)
    await look.execute(update(Metric).values(id=uuid7_at(there), measured_at=there))

    assert NOON in await marked(look)


async def test_a_row_that_is_deleted_marks_its_hour(look: AsyncConnection) -> None:
    await look.execute(delete(Metric))
    await look.execute(delete(Event))

    assert await marked(look, ROUTING) == await marked(look, EXECUTION) == [NOON]


async def test_a_transaction_marks_an_hour_once_however_many_rows_it_writes(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    rows = [decision(NOON + number * MINUTE) for number in range(90)]
    await store_rows(agentobs_database, *rows)

    assert await marked(look) == [NOON, NOON + HOUR]


async def test_what_is_rolled_back_leaves_no_mark(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    async with opened(agentobs_database) as session:
        session.add(decision(NOON))
        await session.flush()
        await session.rollback()

    assert await marked(look) == []


async def test_a_mark_outlives_a_savepoint_that_marked_its_hour_and_was_rolled_back(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    async with opened(agentobs_database) as session:
        savepoint = await session.begin_nested()
        session.add(decision(NOON))
        await session.flush()
        await savepoint.rollback()
        session.add(decision(NOON))
        await session.commit()

    assert await marked(look) == [NOON]
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


async def test_a_mark_in_one_schema_is_none_in_another(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    other = agentobs_database.model_copy(update={"schema_name": "other"})
    await migrations.upgrade(settings=other)
    await fold(other)

    async with opened(agentobs_database) as session:
        for schema in ("public", "other"):
            await session.execute(
                text(
                    f"INSERT INTO {schema}.router_performance_metrics "
                    "(id, metric_type, measured_at) VALUES (:key, 'x', :instant)"
                ),
                {"key": uuid7_at(NOON), "instant": NOON},
            )
        await session.commit()

    assert await marked(look) == [NOON]
    await look.execute(text("SET search_path = other"))
    assert await marked(look) == [NOON]


async def test_what_a_session_has_set_hides_no_mark(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text("BEGIN"))
    for number in range(2):
        await look.execute(
            INSERT,
            {"key": uuid7_at(NOON + number * HOUR), "instant": NOON},
        )
    # As a host's code may, that keeps settings for its connection.
    await look.execute(
        text(
            "SELECT set_config('agentobs.marked_hours', "
            "current_setting('agentobs.marked_hours'), false)"
        )
    )
    await look.execute(text("COMMIT"))
    await fold(agentobs_database)
    assert await marked(look) == []

    await look.execute(
        INSERT,
        {"key": uuid7_at(NOON), "instant": NOON},
    )

    assert await marked(look) == [NOON]


async def test_keys_before_all_windows_and_far_in_the_future_mark_nothing_for_good(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    for key in ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff"):
        await look.execute(
            text(
                "INSERT INTO router_performance_metrics (id, metric_type, measured_at) "
                "VALUES (CAST(:key AS uuid), 'x', 'infinity')"
            ),
            {"key": key},
        )
    await look.execute(
        text(
            "UPDATE router_performance_metrics SET id = 'ffffffff-ffff-4fff-bfff-fffffffffffe' "
            "WHERE measured_at = :noon"
        ),
        {"noon": NOON},
    )

    assert await marked(look) == [NOON]
    await fold(agentobs_database)
    async with folder(agentobs_database) as store:
        assert not await backlog_of(store, ROUTING, LATER)


async def test_a_row_that_is_written_into_a_partition_marks_its_hour(
    look: AsyncConnection,
) -> None:
    values = {"key": uuid7_at(NOON), "instant": NOON}
    await look.execute(
        text(
            "INSERT INTO router_performance_metrics_default (id, metric_type, measured_at) "
            "VALUES (:key, 'x', :instant)"
        ),
        values,
    )

    assert await marked(look) == [NOON]


async def test_rows_that_a_replication_brings_mark_their_hours(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text("SET session_replication_role = replica"))
    values = {"key": uuid7_at(NOON), "instant": NOON}
    await look.execute(
        INSERT,
        values,
    )

    assert await marked(look) == [NOON]
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


async def test_a_marked_hour_is_read_row_by_row_and_folded_anew(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await store_rows(agentobs_database, decision(NOON, 77), run(NOON, 77))
    await look.execute(update(Event).values(success=False))

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
        await fold(agentobs_database)
        assert await marked(look, ROUTING) == await marked(look, EXECUTION) == []
        assert await differences(session) == []


async def test_a_role_that_may_only_insert_marks_hours_too(look: AsyncConnection) -> None:
    await look.execute(text("CREATE ROLE rollup_writer"))
    await look.execute(text("GRANT INSERT ON router_performance_metrics TO rollup_writer"))
    try:
        await look.execute(text("SET ROLE rollup_writer"))
        await look.execute(
            INSERT,
            {"key": uuid7_at(NOON), "instant": NOON},
        )
    finally:
        await look.execute(text("RESET ROLE"))
        await look.execute(text("DROP OWNED BY rollup_writer"))
        await look.execute(text("DROP ROLE rollup_writer"))

    assert await marked(look) == [NOON]
