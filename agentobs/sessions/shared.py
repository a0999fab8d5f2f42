"""One Database for each event loop of a process, for services that have no place to keep it."""

from __future__ import annotations

import asyncio
import gc
import os
from functools import partial
from typing import TYPE_CHECKING

from agentobs.errors import AgentobsError, ConfigurationError
from agentobs.sessions.database import Database
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from agentobs.settings import DatabaseSettings

# The one module variable of the package. The process id is part of the key: what a process that
# forked has in it, its child must neither use nor close, for the sockets are shared.
_DATABASES: dict[tuple[int, asyncio.AbstractEventLoop], asyncio.Task[Database]] = {}


async def get_database(settings: DatabaseSettings | None = None) -> Database:
    """Return the running Database of this event loop; the first call starts it.

    Without settings, those it runs with, or at first the environment's. Raises ConfigurationError
    for other settings than it runs with. `close_database` ends it; the caller does not stop it.
    """
    key = _key()
    task = _DATABASES.get(key)
    if task is None or _is_over(task):
        _forget_closed_loops()
        task = _DATABASES[key] = asyncio.create_task(_started(settings or read_settings()))
        task.add_done_callback(partial(_forget_failure, key))
    # Whoever gives up does not end the start for those who wait with him.
    database = await asyncio.shield(task)
    if settings is not None and settings != database.settings:
        raise ConfigurationError(
            "the Database of this event loop runs with other settings: close it first by "
            "close_database(), or make a Database of your own"
        )
    return database


async def close_database() -> None:
    """Stop the Database of this event loop, where there is one."""
    key = _key()
    if (task := _DATABASES.get(key)) is None:
        return
    try:
        database = await asyncio.shield(task)
    except AgentobsError:
        # It did not start, which its callers were told.
        return
    await database.stop()
    if _DATABASES.get(key) is task:
        del _DATABASES[key]


async def _started(settings: DatabaseSettings) -> Database:
    database = Database(settings)
    await database.start()
    return database


def _key() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


def _forget_failure(
    key: tuple[int, asyncio.AbstractEventLoop], task: asyncio.Task[Database]
) -> None:
    failed = task.cancelled() or task.exception() is not None
    if failed and _DATABASES.get(key) is task:
        del _DATABASES[key]


def _is_over(task: asyncio.Task[Database]) -> bool:
    """Tell whether somebody has stopped the Database by its own method."""
    return (
        task.done()
        and not task.cancelled()
        and not task.exception()
        and (not task.result().is_running)
    )


def _forget_closed_loops() -> None:
    closed = [key for key in _DATABASES if key[0] == os.getpid() and key[1].is_closed()]
    for key in closed:
        del _DATABASES[key]
    if closed:
        # In a loop that is closed nothing can be closed any more; the sockets end with their
        # objects, of which some are in cycles.
        gc.collect()
