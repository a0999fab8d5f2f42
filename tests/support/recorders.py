"""Recorders under test: strict ones with short waits, and what they have stored."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from agentobs import AgentTransformationEvent, Recorder, RouterPerformanceMetric, create_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.models.base import Base

# Long enough for a server under load to answer, so short that a hanging test ends.
PATIENCE = 30.0


def strict_recorder(database: DatabaseSettings, folder: Path, **options: Any) -> Recorder:
    """Make a recorder that raises, and flushes often."""
    chosen = {"lenient": False, "flush_interval": 0.05, "close_timeout": PATIENCE} | options
    return Recorder(database, folder=folder, **chosen)


@asynccontextmanager
async def connected(database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(database)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def stored(database: DatabaseSettings, model: type[Base]) -> list[dict[str, Any]]:
    """Return the rows of a table in the order of their ids."""
    async with connected(database) as connection:
        rows = await connection.execute(select(model.__table__).order_by(model.__table__.c.id))
        return [dict(row) for row in rows.mappings()]


async def events(database: DatabaseSettings) -> list[dict[str, Any]]:
    return await stored(database, AgentTransformationEvent)


async def decisions(database: DatabaseSettings) -> list[dict[str, Any]]:
    return await stored(database, RouterPerformanceMetric)


async def count(database: DatabaseSettings, model: type[Base]) -> int:
    async with connected(database) as connection:
        found = await connection.scalar(select(func.count()).select_from(model.__table__))
        return int(found or 0)


async def stored_ids(database: DatabaseSettings, model: type[Base]) -> set[UUID]:
    async with connected(database) as connection:
        return set(await connection.scalars(select(model.__table__.c.id)))
