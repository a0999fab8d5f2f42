"""Alembic's entry: run the revisions beside this file, online or as SQL."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig
from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from agentobs.embedded.default import with_database
from agentobs.errors import ConfigurationError
from agentobs.migrations.connection import open_connection
from agentobs.migrations.environment import errors_for_operators, run_offline, run_online
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from agentobs.settings import DatabaseSettings

config = context.config
given = config.attributes.get("connection")


async def run_on_engine(engine: AsyncEngine, settings: DatabaseSettings) -> None:
    """Run on an engine that a test tool gives."""
    async with engine.connect() as connection:
        await connection.run_sync(run_online, settings)


async def run_on_own_connection(settings: DatabaseSettings) -> None:
    """Run where the environment says, or on the embedded server where it says nothing."""
    with with_database(settings) as found:
        async with open_connection(found) as connection:
            await connection.run_sync(run_online, found)


# A program that runs migrations has its own logging.
if config.cmd_opts is not None and config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

with errors_for_operators():
    settings = config.attributes.get("settings") or read_settings()
    if context.is_offline_mode():
        run_offline(settings)
    elif given is None:
        asyncio.run(run_on_own_connection(settings))
    elif isinstance(given, AsyncEngine):
        asyncio.run(run_on_engine(given, settings))
    elif isinstance(given, Engine):
        with given.connect() as connection:
            run_online(connection, settings)
    elif isinstance(given, Connection):
        run_online(given, settings)
    else:
        raise ConfigurationError(
            f"attributes['connection'] is of the type {type(given).__name__}: give a Connection "
            "(as run_sync() passes it), an Engine or an AsyncEngine"
        )
