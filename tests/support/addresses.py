"""Settings of a test's own, whatever the environment says, and connections by them."""

from __future__ import annotations

import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from sqlalchemy import text

from agentobs import DatabaseSettings, create_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine


def settings_of(url: str, **others: Any) -> DatabaseSettings:
    return DatabaseSettings(database_url=SecretStr(url), **others)


@asynccontextmanager
async def engine_of(settings: DatabaseSettings, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def ask(settings: DatabaseSettings, statement: str) -> Any:
    """Return the first value that the statement gives over a new connection."""
    async with engine_of(settings) as engine, engine.connect() as connection:
        return await connection.scalar(text(statement))


def shown(error: BaseException) -> str:
    """Return what a log has of an error, the whole chain included."""
    return "".join(traceback.format_exception(error))
