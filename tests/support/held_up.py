"""A database that takes no rows for a while, without an error: a recorder's writer waits."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from support.pools import eventually
from support.shell import connect, connect_in_transaction

from agentobs import AgentTransformationEvent, RouterPerformanceMetric

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentobs import DatabaseSettings
    from agentobs.models.base import Base

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name LIKE '%recorder' AND wait_event_type = 'Lock'"
)
_ALL = (AgentTransformationEvent, RouterPerformanceMetric)


class HeldUp:
    """Who writes has to wait until `go_on` or the end of the block; who reads has not."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings

    async def writer_waits(self, writers: int = 1) -> None:
        """Wait until a batch is on its way, and can't be stored."""
        async with connect(self._settings) as eye:

            async def is_waiting() -> bool:
                return (await eye.scalar(_WAITING) or 0) >= writers

            await eventually(is_waiting)


@asynccontextmanager
async def held_up(settings: DatabaseSettings, *models: type[Base]) -> AsyncIterator[HeldUp]:
    """Let nobody write to these tables, or to any that a recorder writes."""
    async with connect_in_transaction(settings) as connection:
        for model in models or _ALL:
            await connection.execute(text(f"LOCK TABLE {model.__tablename__} IN SHARE MODE"))
        yield HeldUp(settings)
