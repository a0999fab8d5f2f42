from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.pools import (
    AT_ONCE_SECONDS,
    all_in_use,
    changed,
    eventually,
    onlooker,
    pid_of,
    pid_of_next,
)
from support.relay import relay

from agentobs import Database
from agentobs.errors import ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

STUCK = "SELECT pg_sleep(30)"
HALF_THERE = "SELECT count(*) FROM (SELECT FROM pairs GROUP BY number HAVING count(*) <> 2) AS half"
# Where a slot is lost, the one who needs it learns so soon.
ONE_CONNECTION = {"pool_size": 1, "pool_timeout": 5.0}


@pytest_asyncio.fixture
async def eye(module_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(module_database) as found:
        await found.execute("DROP TABLE IF EXISTS pairs")
        await found.execute("CREATE TABLE pairs (number integer, half integer)")
        yield found


@pytest.mark.parametrize(
    "settings",
    [{"pool_min_size": 0}, {"pool_min_size": 1}, {"pool_min_size": 1, "pool_ping_after": 0}],
    ids=["connecting", "connected", "tested"],
)
async def test_whatever_was_on_the_wire_a_cancelled_task_gives_its_connection_back_clean(
    module_database: DatabaseSettings, eye: Onlooker, settings: dict[str, int]
) -> None:
    def cancel_there() -> None:
        if wire.passages == passage:
            task.cancel()

    async with relay(module_database) as wire:
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
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(module_database) as db:
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
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    chance = random.Random(20_260_101)  # noqa: S311 (no secret)
    # One of four is left alone.
    patience = [None if number % 4 == 0 else chance.uniform(0, 0.3) for number in range(300)]

    async def write_for(number: int, seconds: float | None) -> bool:
        task = asyncio.create_task(_write(db, number))
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        await asyncio.wait({task})
        return not task.cancelled()

    async with Database(module_database) as db:
        written = await asyncio.gather(*(write_for(*each) for each in enumerate(patience)))

        assert patience.count(None) <= sum(written) < len(written)
        await _assert_clean(db, eye)
        assert await eye.scalar("SELECT count(*) FROM pairs") >= 2 * sum(written)
        async with all_in_use(db, 20):
            assert await eye.count() == 20


async def test_a_statement_whose_task_is_cancelled_ends_on_the_server_too(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(changed(module_database, **ONE_CONNECTION)) as db:
        task = asyncio.create_task(_execute(db, STUCK))
        await eventually(lambda: eye.running(STUCK))
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        await _assert_clean(db, eye)
        await pid_of_next(db)


async def test_what_a_cancelled_task_gave_up_is_not_replaced_while_another_one_is_idle(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(changed(module_database, pool_size=2, pool_min_size=2)) as db:
        kept = await db.connection().start()
        pid = await pid_of(kept)
        task = asyncio.create_task(_execute(db, STUCK))
        await eventually(lambda: eye.running(STUCK))
        await kept.close()
        task.cancel()
        await asyncio.wait({task})
        await _assert_clean(db, eye)

        assert await pid_of_next(db) == pid
        assert await eye.pids() == {pid}


async def test_a_timeout_around_a_statement_leaves_a_clean_pool(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(changed(module_database, **ONE_CONNECTION)) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), db.begin() as session:
                await session.execute(text(STUCK))

        await _assert_clean(db, eye)
        await pid_of_next(db)


async def test_a_group_of_tasks_that_one_of_them_ends_leaves_a_clean_pool(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async def fail_when_all_are_stuck() -> None:
        await eventually(lambda: _running_at_least(eye, 3))
        raise ZeroDivisionError

    async def run_together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(_execute(db, STUCK))
            group.create_task(fail_when_all_are_stuck())

    async with Database(changed(module_database, pool_size=3)) as db:
        with pytest.raises(ExceptionGroup) as caught:
            await run_together()

        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        await _assert_clean(db, eye)
        async with all_in_use(db, 3):
            assert await eye.count() == 3


async def test_a_task_that_is_cancelled_while_it_waits_loses_no_connection(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(changed(module_database, **ONE_CONNECTION)) as db:
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
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with Database(changed(module_database, **ONE_CONNECTION)) as db:
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
    assert await eye.scalar(HALF_THERE) == 0
