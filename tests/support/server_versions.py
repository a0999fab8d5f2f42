"""What only newer servers can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

_MAJOR = text("SELECT current_setting('server_version_num')::int / 10000")


async def needs_server(connection: AsyncConnection | AsyncSession, major: int, what: str) -> None:
    """Skip the rest of the test on a server that is older than what it is about."""
    if await connection.scalar(_MAJOR) < major:
        pytest.skip(f"{what} from PostgreSQL {major} on")
