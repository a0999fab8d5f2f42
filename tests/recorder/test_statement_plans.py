"""What the writer's statements read and lock: one month, and rows in the order of their ids."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import select, text
from support.event_rows import EVENTS, METRICS
from support.maintenance import FEBRUARY, JANUARY, MARCH, middle_of
from support.plans import scans_of
from support.pools import eventually
from support.recorder_rows import (
    NOW,
    Event,
    Metric,
    completion,
    feedback,
    outcome,
    records_of,
    stored,
)
from support.shell import connect, connect_in_transaction

from agentobs.maintenance import Policy, maintain
from agentobs.recorder.writing.statements import (
    Feedback,
    complete_runs,
    completed,
    existing,
    insert_records,
    update_feedback,
    update_outcomes,
)
from agentobs.testing.databases import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

    Work = Callable[[AsyncConnection, list[UUID]], Coroutine[Any, Any, set[UUID]]]

pytest_plugins = ["support.pool_fixtures"]

CHANGES_SCHEMA = True

WAITING = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
FREE = text(f"SELECT id FROM {EVENTS} ORDER BY id FOR UPDATE SKIP LOCKED")


async def outcomes_of(connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    return await update_outcomes(connection, [outcome(key) for key in keys])


async def feedback_of(connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    return await update_feedback(connection, [feedback(key) for key in keys])


async def completions_of(connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    return await complete_runs(connection, [completion(key) for key in keys])


async def existing_events(connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    return await existing(connection, Event, keys)


async def existing_metrics(connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    return await existing(connection, Metric, keys)


@pytest.fixture(scope="module")
def months(module_database: DatabaseSettings) -> DatabaseSettings:
    """Return the settings of a database with rows in three months, and analyzed."""

    async def fill() -> None:
        await maintain(Policy(now=JANUARY.first, ahead=2), settings=module_database)
        async with connect(module_database) as connection:
            for month in (JANUARY, FEBRUARY, MARCH):
                for model, values in ((Event, {"completed_at": NOW}), (Metric, {})):
                    await stored(connection, model, 2000, at=middle_of(month), **values)
            await connection.execute(text(f"VACUUM (ANALYZE) {EVENTS}, {METRICS}"))

    run(fill())
    return module_database


@pytest_asyncio.fixture
async def connection(months: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A transaction on the months, which is rolled back."""
    async with connect_in_transaction(months) as found:
        yield found


async def keys_of(connection: AsyncConnection, table: str, count: int) -> list[UUID]:
    """Return so many ids of the month in the middle, in any order."""
    query = f"SELECT id FROM {table} WHERE id >= :lower AND id < :upper ORDER BY random() LIMIT :n"
    bounds = {"lower": FEBRUARY.lower_id, "upper": FEBRUARY.upper_id, "n": count}
    return list(await connection.scalars(text(query), bounds))


@pytest.mark.parametrize("mode", ["auto", "force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    ("table", "work"),
    [
        (METRICS, outcomes_of),
        (METRICS, feedback_of),
        (METRICS, existing_metrics),
        (EVENTS, completions_of),
        (EVENTS, existing_events),
        (EVENTS, completed),
    ],
)
async def test_a_batch_is_looked_for_in_its_month_alone_by_the_key(
    connection: AsyncConnection, table: str, work: Work, mode: str
) -> None:
    keys = await keys_of(connection, table, 10)
    await connection.execute(text(f"SET LOCAL plan_cache_mode = {mode}"))
    found: set[UUID] = set()

    async def look() -> None:
        found.update(await work(connection, keys))

    assert await scans_of(connection, look) == {(FEBRUARY.suffix, f"{table}_pkey")}
    assert found == set(keys)


@pytest.mark.parametrize(
    ("table", "work"), [(METRICS, outcomes_of), (METRICS, feedback_of), (EVENTS, completions_of)]
)
async def test_a_batch_of_most_rows_of_its_month_is_looked_for_in_no_other(
    connection: AsyncConnection, table: str, work: Work
) -> None:
    keys = await keys_of(connection, table, 1500)

    scans = await scans_of(connection, lambda: work(connection, keys))

    assert {leaf for leaf, _ in scans} == {FEBRUARY.suffix}


@pytest_asyncio.fixture
async def eye(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into the test's own database, in autocommit."""
    async with connect(agentobs_database) as found:
        yield found


async def stored_backwards(connection: AsyncConnection, model: type[Any], count: int) -> list[UUID]:
    """Store records so that a scan of the table meets the last ones first; return ids in order."""
    columns, records = records_of(model, count)
    await insert_records(connection, model, columns, records[::-1])
    return [record[0] for record in records]


async def waits(eye: AsyncConnection, *tasks: asyncio.Task[Any]) -> None:
    """Wait until each of the tasks waits for a lock."""

    async def waiting() -> bool:
        assert not any(task.done() for task in tasks)
        return bool(await eye.scalar(WAITING) == len(tasks))

    await eventually(waiting)


async def test_a_batch_locks_its_rows_in_the_order_of_ids_whatever_its_own(
    agentobs_database: DatabaseSettings, eye: AsyncConnection
) -> None:
    work = completions_of
    keys = await stored_backwards(eye, Event, 20)
    async with (
        connect_in_transaction(agentobs_database) as holder,
        connect_in_transaction(agentobs_database) as writer,
    ):
        await work(holder, keys[7:8])
        task = asyncio.create_task(work(writer, keys[::-1]))
        await waits(eye, task)
        free = list(await eye.scalars(FREE))
        await holder.rollback()
        await task

    assert free == keys[8:]


async def test_two_batches_of_the_same_rows_in_opposite_order_wait_for_each_other_only_once(
    agentobs_database: DatabaseSettings, eye: AsyncConnection
) -> None:
    work = completions_of
    keys = await stored_backwards(eye, Event, 200)
    async with (
        connect_in_transaction(agentobs_database) as holder,
        connect_in_transaction(agentobs_database) as first,
        connect_in_transaction(agentobs_database) as second,
    ):
        await work(holder, keys[:1])
        orders = (first, keys), (second, keys[::-1])
        tasks = [asyncio.create_task(committed(work, *order)) for order in orders]
        await waits(eye, *tasks)
        await holder.commit()

        assert await asyncio.gather(*tasks) == [set(keys)] * 2


async def committed(work: Work, connection: AsyncConnection, keys: list[UUID]) -> set[UUID]:
    found = await work(connection, keys)
    await connection.commit()
    return found


@pytest.mark.parametrize("work", [outcomes_of, feedback_of])
async def test_what_another_transaction_has_locked_holds_up_nothing_and_is_not_matched(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, work: Work
) -> None:
    keys = await stored_backwards(eye, Metric, 20)
    async with connect_in_transaction(agentobs_database) as holder:
        await work(holder, keys[7:8])

        assert await work(eye, keys) == set(keys) - set(keys[7:8])


async def test_feedback_that_is_late_gives_way_to_any_that_is_stored(eye: AsyncConnection) -> None:
    first, second = await stored(eye, Metric, 2)
    await update_feedback(eye, [Feedback(first, "positive", None)])

    late = [Feedback(key, "negative", None, is_late=True) for key in (first, second)]
    assert await update_feedback(eye, late) == {first, second}

    columns = select(Metric.id, Metric.feedback_type)
    found = {row.id: row.feedback_type for row in await eye.execute(columns)}
    assert found == {first: "positive", second: "negative"}
