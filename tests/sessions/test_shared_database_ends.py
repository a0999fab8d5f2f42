from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.pools import (
    eventually,
    onlooker,
    pid_of_next,
)
from support.relay import relay

from agentobs import close_database, get_database
from agentobs.errors import (
    ConnectionFailedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.pools import Onlooker

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


@pytest_asyncio.fixture
async def eye(module_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(module_database) as found:
        yield found


async def test_a_database_that_somebody_stopped_is_not_handed_out_again(
    module_database: DatabaseSettings,
) -> None:
    async with await get_database(module_database) as first:
        pass
    second = await get_database(module_database)

    assert second is not first
    assert await pid_of_next(second)
    await close_database()


async def test_closing_while_the_start_fails_is_no_error(
    module_database: DatabaseSettings,
) -> None:
    async with relay(module_database) as wire:
        await wire.close()
        getting = asyncio.create_task(get_database(wire.settings))
        await asyncio.sleep(0)
        await close_database()

        with pytest.raises(ConnectionFailedError):
            await getting


async def test_who_gives_up_closing_does_not_end_the_start_of_others(
    module_database: DatabaseSettings,
) -> None:
    getting = asyncio.create_task(get_database(module_database))
    await asyncio.sleep(0)
    closing = asyncio.create_task(close_database())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})

    assert (await getting).is_running
    await close_database()


async def test_loops_that_ended_without_closing_leave_no_connections(
    module_database: DatabaseSettings, eye: Onlooker
) -> None:
    async def job() -> None:
        db = await get_database(module_database)
        await pid_of_next(db)

    async def few_are_left() -> bool:
        return await eye.count() <= 5

    async def jobs() -> None:
        for _ in range(4):
            await asyncio.to_thread(asyncio.run, job())
        await asyncio.to_thread(asyncio.run, _get_and_close(module_database))

    with pytest.warns(ResourceWarning):
        await jobs()

    await eventually(few_are_left)


async def _get_and_close(settings: DatabaseSettings) -> None:
    await get_database(settings)
    await close_database()
