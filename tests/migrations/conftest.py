from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.shell import connect

from agentobs import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

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
