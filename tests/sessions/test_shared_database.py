from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.pools import changed, eventually, onlooker, pid_of_next
from support.relay import relay
from support.shell import url_of

from agentobs import Database, close_database, get_database
from agentobs.errors import ConfigurationError, ConnectionFailedError, DatabaseNotRunningError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


@pytest_asyncio.fixture
async def eye(module_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    """Look at the database; close what the test has shared, which must leave nothing open."""
    async with onlooker(module_database) as found:
        yield found
        await close_database()
        await eventually(found.is_alone)


async def test_an_event_loop_has_one_database(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    first = await get_database(module_database)

    assert await get_database(module_database) is first
    assert await get_database() is first
    assert await pid_of_next(first) in await eye.pids()


async def test_first_calls_at_once_start_one_database(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    found = await asyncio.gather(*(get_database(module_database) for _ in range(10)))

    assert len(set(found)) == 1
    assert found[0].pool_stats().idle == 5
    assert await eye.count() == 5


async def test_without_settings_the_environment_is_read(
    module_database: DatabaseSettings, eye: Onlooker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(module_database))
    monkeypatch.setenv("AGENTOBS_POOL_MIN_SIZE", "2")
    await get_database()

    assert await eye.count() == 2


def test_another_event_loop_has_another_database(module_database: DatabaseSettings) -> None:
    async def use() -> tuple[Database, int]:
        database = await get_database(module_database)
        pid = await pid_of_next(database)
        await close_database()
        return database, pid

    (first, first_pid), (second, second_pid) = asyncio.run(use()), asyncio.run(use())

    assert first is not second
    assert first_pid != second_pid


async def test_event_loops_that_run_at_once_have_a_database_each(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async def use_in_thread() -> Database:
        database = await get_database(module_database)
        assert await pid_of_next(database) not in ours
        await close_database()
        return database

    here = await get_database(module_database)
    ours = await eye.pids()
    there = await asyncio.to_thread(asyncio.run, use_in_thread())

    assert there is not here
    assert await get_database() is here
    assert await pid_of_next(here) in ours


async def test_other_settings_than_it_runs_with_are_refused(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    first = await get_database(module_database)
    with pytest.raises(ConfigurationError, match=r"other settings.*close_database\(\)"):
        await get_database(changed(module_database, pool_size=7))

    assert await get_database(changed(module_database)) is first
    assert await eye.count() == 5


async def test_a_start_that_failed_can_be_repeated(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with relay(module_database) as wire:
        await wire.close()
        waiters = [get_database(wire.settings) for _ in range(3)]
        for error in await asyncio.gather(*waiters, return_exceptions=True):
            assert isinstance(error, ConnectionFailedError)

        await wire.open()
        await get_database(wire.settings)
        assert await eye.count() == 5
        await close_database()


async def test_after_a_failed_start_other_settings_may_be_tried(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with relay(module_database) as wire:
        await wire.close()
        with pytest.raises(ConnectionFailedError):
            await get_database(wire.settings)

    await get_database(module_database)
    assert await eye.count() == 5


async def test_a_task_that_gives_up_does_not_end_the_start_of_the_others(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    first, second = (asyncio.create_task(get_database(module_database)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    assert await get_database(module_database) is await second
    assert await eye.count() == 5


async def test_a_task_that_gives_up_at_the_last_moment_loses_no_database(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    before = asyncio.all_tasks()
    waiter = asyncio.create_task(get_database(module_database))
    await asyncio.sleep(0)
    (start,) = asyncio.all_tasks() - before - {waiter}
    start.add_done_callback(lambda _: waiter.cancel())
    with pytest.raises(asyncio.CancelledError):
        await waiter

    assert await get_database(module_database) is await start
    assert await eye.count() == 5


async def test_when_all_give_up_the_database_is_there_for_the_next_one(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    waiters = [asyncio.create_task(get_database(module_database)) for _ in range(3)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)

    await get_database(module_database)
    assert await eye.count() == 5


async def test_a_failure_that_nobody_waited_for_is_not_told_to_the_next_one(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async with relay(module_database) as wire:
        await wire.close()
        before = asyncio.all_tasks()
        waiter = asyncio.create_task(get_database(wire.settings))
        await asyncio.sleep(0)
        (start,) = asyncio.all_tasks() - before - {waiter}
        waiter.cancel()
        await asyncio.wait({start, waiter})
        await wire.open()

        await get_database(wire.settings)
        assert await eye.count() == 5
        await close_database()


async def test_a_closed_database_leaves_nothing_and_the_next_call_starts_another(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    first = await get_database(module_database)
    await close_database()
    assert await eye.is_alone()
    with pytest.raises(DatabaseNotRunningError):
        first.session()

    second = await get_database(changed(module_database, pool_min_size=1))
    assert second is not first
    assert await eye.count() == 1


async def test_a_close_during_the_start_leaves_nothing(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    waiter = asyncio.create_task(get_database(module_database))
    await asyncio.sleep(0)
    await close_database()
    await waiter

    await eventually(eye.is_alone)


async def test_where_none_is_shared_there_is_nothing_to_close() -> None:
    await close_database()
