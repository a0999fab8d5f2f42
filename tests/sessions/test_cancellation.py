from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.pools import (
    AT_ONCE_SECONDS,
    all_in_use,
    changed,
    eventually,
    onlooker,
    pid_of_next,
    running,
)
from support.relay import relay

from agentobs import Database
from agentobs.errors import ConnectionFailedError

if TYPE_CHECKING:
    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

STUCK = "SELECT pg_sleep(30)"
PAIRS = "CREATE TABLE pairs (number integer, half integer)"
HALF_THERE = "SELECT count(*) FROM (SELECT FROM pairs GROUP BY number HAVING count(*) <> 2) AS half"
# Where a slot is lost, the one who needs it learns so soon.
ONE_CONNECTION = {"pool_size": 1, "pool_timeout": 5.0}


@pytest.mark.parametrize(
    "settings",
    [{"pool_min_size": 0}, {"pool_min_size": 1}, {"pool_min_size": 1, "pool_ping_after": 0}],
    ids=["connecting", "connected", "tested"],
)
async def test_whatever_was_on_the_wire_a_cancelled_task_gives_its_connection_back_clean(
    agentobs_database: DatabaseSettings, settings: dict[str, int]
) -> None:
    def cancel_there() -> None:
        if wire.passages == passage:
            task.cancel()

    async with relay(agentobs_database) as wire, onlooker(agentobs_database) as eye:
        await eye.execute(PAIRS)
        task: asyncio.Task[None]
        for passage in range(1, 100):
            async with Database(changed(wire.settings, **ONE_CONNECTION, **settings)) as db:
                wire.forget()
                wire.on_passage = cancel_there
                task = asyncio.create_task(_write(db, passage))
                await asyncio.wait({task})
                wire.on_passage = lambda: None

                await pid_of_next(db)
                await _assert_clean(db, eye)
            if not task.cancelled():
                break
    assert not task.cancelled()
    assert passage > 8, "there was less on the wire than a transaction"


async def test_however_far_it_came_a_cancelled_task_gives_its_connection_back_clean(
    agentobs_database: DatabaseSettings,
) -> None:
    async with running(agentobs_database) as (db, eye):
        await eye.execute(PAIRS)
        for turns in range(60):
            task = asyncio.create_task(_write(db, turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})

        await _assert_clean(db, eye)
        async with all_in_use(db, 20):
            assert await eye.count() == 20


async def test_many_tasks_that_are_cancelled_at_any_time_leave_a_clean_pool(
    agentobs_database: DatabaseSettings,
) -> None:
    chance = random.Random(20_260_101)  # noqa: S311 (no secret)
    # One of four is left alone.
    patience = [
        chance.choice([None, *(chance.uniform(0, 0.3) for _ in range(3))]) for _ in "x" * 300
    ]

    async def write_for(number: int, seconds: float | None) -> bool:
        task = asyncio.create_task(_write(db, number))
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        await asyncio.wait({task})
        return not task.cancelled()

    async with running(agentobs_database) as (db, eye):
        await eye.execute(PAIRS)
        written = await asyncio.gather(*(write_for(*each) for each in enumerate(patience)))

        assert patience.count(None) <= sum(written) < len(written)
        await _assert_clean(db, eye)
        assert await eye.scalar("SELECT count(*) FROM pairs") >= 2 * sum(written)
        async with all_in_use(db, 20):
            assert await eye.count() == 20


async def test_a_statement_whose_task_is_cancelled_ends_on_the_server_too(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        task = asyncio.create_task(_execute(db, STUCK))
        await eventually(lambda: eye.running(STUCK))
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        await _assert_clean(db, eye)
        await pid_of_next(db)


async def test_a_timeout_around_a_statement_leaves_a_clean_pool(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), db.begin() as session:
                await session.execute(text(STUCK))

        await _assert_clean(db, eye)
        await pid_of_next(db)


async def test_a_group_of_tasks_that_one_of_them_ends_leaves_a_clean_pool(
    module_database: DatabaseSettings,
) -> None:
    async def fail_when_all_are_stuck() -> None:
        await eventually(lambda: _running_at_least(eye, 3))
        raise ZeroDivisionError

    async def run_together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(_execute(db, STUCK))
            group.create_task(fail_when_all_are_stuck())

    async with running(module_database, pool_size=3) as (db, eye):
        with pytest.raises(ExceptionGroup) as caught:
            await run_together()

        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        await _assert_clean(db, eye)
        async with all_in_use(db, 3):
            assert await eye.count() == 3


async def test_a_task_that_is_cancelled_while_it_waits_loses_no_connection(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        holder = await db.connection().start()
        tasks = [asyncio.create_task(pid_of_next(db)) for _ in range(6)]
        await eventually(lambda: _waiting(db, 6))
        for task in tasks[::2]:
            task.cancel()
        await eventually(lambda: _waiting(db, 3))
        await holder.close()

        async with asyncio.timeout(AT_ONCE_SECONDS):
            await asyncio.gather(*tasks[1::2])
        await _assert_clean(db, eye)


async def test_a_task_that_is_cancelled_as_it_gets_a_connection_loses_it_to_the_next(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, **ONE_CONNECTION) as (db, eye):
        for turns in range(12):
            holder = await db.connection().start()
            first, second = (asyncio.create_task(pid_of_next(db)) for _ in range(2))
            await eventually(lambda: _waiting(db, 2))
            release = asyncio.create_task(holder.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()

            async with asyncio.timeout(AT_ONCE_SECONDS):
                await second
            await release
            with suppress(asyncio.CancelledError):
                await first
            await _assert_clean(db, eye)


async def test_a_task_that_is_cancelled_while_it_connects_lets_the_next_one_connect(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        settings = changed(wire.settings, **ONE_CONNECTION, pool_min_size=0)
        async with Database(settings) as db:
            wire.hold_up()
            first, second = (asyncio.create_task(pid_of_next(db)) for _ in range(2))
            await eventually(lambda: _waiting(db, 2))
            first.cancel()
            await asyncio.wait({first})
            wire.go_on()

            async with asyncio.timeout(AT_ONCE_SECONDS):
                await second


async def test_a_task_that_fails_to_connect_does_not_keep_the_next_one_waiting(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        settings = changed(wire.settings, **ONE_CONNECTION, pool_min_size=0)
        async with Database(settings) as db:
            await wire.close()
            async with asyncio.timeout(AT_ONCE_SECONDS):
                results = await asyncio.gather(
                    *(pid_of_next(db) for _ in range(3)), return_exceptions=True
                )

        assert [type(each) for each in results] == [ConnectionFailedError] * 3


async def _write(db: Database, number: int) -> None:
    async with db.begin() as session:
        for half in (1, 2):
            await session.execute(
                text("INSERT INTO pairs VALUES (:number, :half)"), {"number": number, "half": half}
            )


async def _execute(db: Database, statement: str) -> None:
    async with db.begin() as session:
        await session.execute(text(statement))


async def _waiting(db: Database, count: int) -> bool:
    return db.pool_stats().waiting == count


async def _running_at_least(eye: Onlooker, count: int) -> bool:
    return len(await eye.running(STUCK)) >= count


async def _assert_clean(db: Database, eye: Onlooker) -> None:
    """Expect what a cancelled task was doing to be over, here and on the server."""

    async def all_is_over() -> bool:
        stats = db.pool_stats()
        return stats.in_use == stats.waiting == 0 and await eye.states() <= {"idle"}

    await eventually(all_is_over)
    if await eye.scalar("SELECT to_regclass('pairs')") is not None:
        assert await eye.scalar(HALF_THERE) == 0
