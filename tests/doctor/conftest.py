from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from support.shell import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


@pytest_asyncio.fixture
async def hand(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield an operator's connection to the test's own database, in autocommit."""
    async with connect(agentobs_database) as found:
        yield found
