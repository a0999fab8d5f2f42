from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.shell import connect

from agentobs import migrations
from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection
    from support.online_pair import Pair

    from agentobs import DatabaseSettings


@pytest.fixture
def empty(agentobs_empty_database: DatabaseSettings) -> DatabaseSettings:
    return agentobs_empty_database


@pytest_asyncio.fixture
async def connection(empty: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into the empty database, in autocommit."""
    async with connect(empty) as found:
        yield found


@pytest_asyncio.fixture
async def at_head(empty: DatabaseSettings) -> DatabaseSettings:
    await migrations.upgrade(settings=empty)
    return empty


@pytest.fixture(scope="module")
def shared_0004(agentobs_server: URL) -> Iterator[DatabaseSettings]:
    """Yield the settings of a database at 0004 in which no test commits."""
    with temporary_database(agentobs_server) as name:
        found = settings_for(agentobs_server, name)
        run(migrations.upgrade("0004", settings=found))
        yield found


@pytest.fixture
def pair(agentobs_server: URL) -> Iterator[Pair]:
    """Yield two empty databases."""
    with temporary_database(agentobs_server) as one, temporary_database(agentobs_server) as other:
        yield settings_for(agentobs_server, one), settings_for(agentobs_server, other)
