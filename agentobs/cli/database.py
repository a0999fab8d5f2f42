"""The database that a command works on: the environment's, or the embedded server's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agentobs.embedded.default import with_database
from agentobs.sessions import create_engine, create_session_factory
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@asynccontextmanager
async def open_session_factory() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open the session factory of one command, and close its connections at the end.

    Raises DatabaseError where the server can't be reached or the tables are not there.
    """
    with with_database(read_settings()) as settings:
        engine = create_engine(settings)
        try:
            async with engine.connect():
                # Before a command reads files and shows progress, it is known that this works.
                pass
            yield create_session_factory(engine)
        finally:
            await engine.dispose()
