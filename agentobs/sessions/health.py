"""Whether the database answers, and at which revision it is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, MetaData, String, Table, select
from sqlalchemy.util import greenlet_spawn

from agentobs.errors import AgentobsError, SchemaMismatchError
from agentobs.sessions.pool import WatchedPool

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

# Alembic's table, under the name that the migrations give it.
_REVISION = select(
    Table("agentobs_alembic_version", MetaData(), Column("version_num", String)).c.version_num
)
_NOT_MIGRATED = (
    "the tables are not there: run `agentobs db upgrade`, or name their schema in AGENTOBS_SCHEMA"
)


class Health(BaseModel):
    """The state of the database; `reason` says why it is not `ok`.

    `latency_ms` is the time of the whole check, the acquisition of a connection included.
    """

    model_config = ConfigDict(frozen=True)

    ok: bool
    latency_ms: float
    server_version: str | None = None
    revision: str | None = None
    reason: str | None = None


async def check_health(engine: AsyncEngine, timeout_seconds: float) -> Health:
    """Ask the database for its revision; never raises, and ends within `timeout_seconds`."""
    began = time.perf_counter()
    version = revision = reason = None
    try:
        version, revision = await _within(timeout_seconds, engine)
        reason = None if revision else _NOT_MIGRATED
    except SchemaMismatchError:
        reason = _NOT_MIGRATED
    except Exception as error:  # noqa: BLE001 (the answer of a health check is no exception)
        reason = _reason(error, timeout_seconds, engine)
    return Health(
        ok=reason is None,
        latency_ms=1000 * (time.perf_counter() - began),
        server_version=version,
        revision=revision,
        reason=reason,
    )


async def _within(timeout_seconds: float, engine: AsyncEngine) -> tuple[str, str | None]:
    # As one piece: the async connection would be three, with a task for its close.
    task = asyncio.create_task(greenlet_spawn(_ask, engine.sync_engine))
    try:
        await asyncio.wait({task}, timeout=timeout_seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        # To give up may take seconds, where the network is silent: nobody waits for that.
        task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _ask(engine: Engine) -> tuple[str, str | None]:
    with engine.connect() as connection:
        # The server told its version when the connection was opened: nothing is asked for it.
        driver: Any = connection.connection.driver_connection
        return str(driver.get_settings().server_version), connection.scalar(_REVISION)


def _reason(error: Exception, timeout_seconds: float, engine: AsyncEngine) -> str:
    if isinstance(error, AgentobsError):
        return str(error)
    pool = engine.pool
    if isinstance(error, TimeoutError) and isinstance(pool, WatchedPool) and pool.is_exhausted:
        return f"every connection was in use for {timeout_seconds:g} s ({pool.size()} in all)"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    return type(error).__name__
