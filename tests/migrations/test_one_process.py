"""Several runs in one process: Alembic's own context is a global."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import NullPool
from support.shell import HEAD

from agentobs import create_engine, migrations
from agentobs.errors import MigrationError
from agentobs.migrations.scripts import alembic_config

if TYPE_CHECKING:
    from alembic.config import Config

    from agentobs import DatabaseSettings


def _in_schema(settings: DatabaseSettings, name: str) -> DatabaseSettings:
    return settings.model_copy(update={"schema_name": name})


async def test_a_check_beside_a_downgrade_leaves_the_other_schema_alone(
    at_head: DatabaseSettings,
) -> None:
    other = _in_schema(at_head, "other")
    await migrations.upgrade(settings=other)

    await asyncio.gather(
        migrations.check(settings=at_head),
        migrations.downgrade("base", settings=other),
        migrations.check(settings=at_head),
    )

    assert await migrations.current(settings=at_head) == HEAD
    assert await migrations.current(settings=other) is None


def test_runs_on_several_threads_take_turns(empty: DatabaseSettings) -> None:
    schemas = [_in_schema(empty, name) for name in ("one", "two", "three")]
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda s: asyncio.run(migrations.upgrade(settings=s)), schemas))

    assert [asyncio.run(migrations.current(settings=s)) for s in schemas] == [HEAD] * 3


async def test_an_online_run_takes_turns_with_the_others(empty: DatabaseSettings) -> None:
    schemas = [_in_schema(empty, name) for name in ("one", "two", "three")]
    await migrations.upgrade("0004", settings=schemas[0])

    await asyncio.gather(
        migrations.upgrade_online(settings=schemas[0]),
        *(migrations.upgrade(settings=each) for each in schemas[1:]),
    )

    assert [await migrations.current(settings=each) for each in schemas] == [HEAD] * 3
    for each in schemas:
        await migrations.check(settings=each)


async def test_sql_while_a_run_is_at_work_is_a_clear_error(empty: DatabaseSettings) -> None:
    run = asyncio.create_task(migrations.upgrade(settings=empty))
    await asyncio.sleep(0)

    with pytest.raises(MigrationError, match="at work in this process"):
        migrations.sql()
    await run


@pytest.mark.parametrize("revision", ["", ":", "0001:", ":0002", "0001:0002:0003", " "])
def test_a_range_with_an_empty_part_is_a_clear_error(revision: str) -> None:
    with pytest.raises(MigrationError, match="is no revision"):
        migrations.sql(revision)


async def test_the_logging_of_a_program_is_left_alone(
    empty: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), caplog.handler in root.handlers
    await migrations.upgrade(settings=empty)

    assert (root.level, list(root.handlers), caplog.handler in root.handlers) == before


def _config(settings: DatabaseSettings, connection: object) -> Config:
    config = alembic_config()
    config.attributes.update(settings=settings, connection=connection)
    return config


async def test_a_host_may_give_the_connection_of_run_sync(empty: DatabaseSettings) -> None:
    engine = create_engine(empty, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(lambda c: command.upgrade(_config(empty, c), "head"))
    await engine.dispose()

    assert await migrations.current(settings=empty) == HEAD


def test_what_is_no_connection_is_refused_by_its_type(empty: DatabaseSettings) -> None:
    with pytest.raises(CommandError, match="of the type str"):
        command.upgrade(_config(empty, "postgresql://"), "head")
