"""Our revisions are run by the env.py of a host, behind its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.host_project import HostProject, make_project
from support.shell import HEAD, agentobs, psql

from agentobs import migrations

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

OURS = "migrations.upgrade_with_host(connection)"
# A program that shares its connection with Alembic, as Alembic's cookbook has it.
PROGRAM = """
import asyncio
import os
import sys

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine

config = Config("alembic.ini")
config.set_main_option("script_location", "migrations")


def upgrade(connection):
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    # Alembic's own environment is whole after ours.
    command.current(config)


async def main(begin):
    engine = create_async_engine(os.environ["HOST_DATABASE_URL"])
    try:
        async with engine.begin() if begin else engine.connect() as connection:
            await connection.run_sync(upgrade)
    except CommandError as error:
        sys.exit(f"refused: {error}")
    finally:
        await engine.dispose()


asyncio.run(main("begin" in sys.argv))
"""


@pytest.fixture
def project(tmp_path: Path, empty: DatabaseSettings) -> HostProject:
    found = make_project(tmp_path, empty)
    found.write_env(afterwards=OURS)
    return found


def run(project: HostProject, *arguments: str, **extra: str) -> str:
    done = project.alembic(*arguments, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def tables(connection: AsyncConnection, schema: str = "public") -> set[str]:
    return {name for name, _ in (await read_catalog(connection, schema))["tables"]}


async def test_one_command_upgrades_both_each_with_its_own_version_table(
    project: HostProject, connection: AsyncConnection
) -> None:
    first, second = run(project, "upgrade", "head"), run(project, "upgrade", "head")

    assert f"schema public is now at {HEAD}" in first
    assert f"schema public is at {HEAD}: nothing to do" in second
    assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "a1"
    assert await migrations.current(settings=project.settings) == HEAD
    await migrations.check(settings=project.settings)
    assert "No new upgrade operations detected" in run(project, "check")


async def test_what_the_host_takes_back_is_its_own(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "upgrade", "head")

    run(project, "downgrade", "base")
    assert "orders" not in await tables(connection)
    assert await migrations.current(settings=project.settings) == HEAD

    run(project, "upgrade", "head")
    gone = agentobs("db", "downgrade", "base", settings=project.settings)
    assert gone.returncode == 0, gone.stderr
    assert await tables(connection) == {"orders", "alembic_version"}


async def test_a_command_that_only_reads_upgrades_nothing(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "current")

    assert await tables(connection) == set()


async def test_ours_wait_until_the_host_is_at_its_head(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "revision", "-m", "second")

    run(project, "upgrade", "+1")
    assert await tables(connection) == {"orders", "alembic_version"}
    run(project, "upgrade", "head")
    assert "agent_definitions" in await tables(connection)


async def test_ours_go_to_the_schema_of_choice(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "upgrade", "head", AGENTOBS_SCHEMA="obs")

    assert await tables(connection) == {"orders", "alembic_version"}
    settings = project.settings.model_copy(update={"schema_name": "obs"})
    assert await migrations.current(settings=settings) == HEAD
    await migrations.check(settings=settings)
    assert "No new upgrade" in run(project, "check", AGENTOBS_SCHEMA="obs")


async def test_a_failure_of_ours_is_one_line_and_leaves_the_hosts_own_done(
    project: HostProject, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE TABLE agent_definitions (id integer)"))

    done = project.alembic("upgrade", "head")

    assert done.returncode != 0
    assert done.stderr.startswith("agentobs: schema public holds agent_definitions")
    assert len(done.stderr.splitlines()) == 1
    assert await tables(connection) == {"orders", "alembic_version", "agent_definitions"}


async def test_a_program_gives_its_open_connection(project: HostProject) -> None:
    done = project.run("-W", "error", "-c", PROGRAM)

    assert done.returncode == 0, done.stderr
    assert "a1 (head)" in done.stdout
    assert await migrations.current(settings=project.settings) == HEAD


async def test_a_transaction_that_is_open_is_refused_and_rolled_back(
    project: HostProject, connection: AsyncConnection
) -> None:
    done = project.run("-W", "error", "-c", PROGRAM, "begin")

    assert done.returncode != 0
    assert done.stderr.startswith("refused: the connection has a transaction open")
    assert await tables(connection) == set()


async def test_the_sql_of_both_is_printed_by_two_commands(
    project: HostProject, connection: AsyncConnection
) -> None:
    hosts = project.alembic("upgrade", "head", "--sql")
    assert hosts.returncode == 0, hosts.stderr
    assert "agent_definitions" not in hosts.stdout
    for sql in (hosts.stdout, migrations.sql()):
        assert psql(project.settings, sql).returncode == 0

    assert {"orders", "agent_definitions"} < await tables(connection)
    assert f"schema public is at {HEAD}: nothing to do" in run(project, "upgrade", "head")
