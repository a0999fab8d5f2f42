"""What an operator types, from the repository root."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.shell import HEAD, REPOSITORY, agentobs, alembic, connect, environment, psql

from agentobs import migrations
from agentobs.migrations import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

# A port where nothing listens: whoever connects to it fails.
NOWHERE = "postgresql://postgres:hunter2@127.0.0.1:1/nowhere"

# An operator's shell holds all eight at one gate until each has started.
RACE = """
import sys
print("ready", flush=True)
sys.stdin.readline()
from alembic.config import main
main(argv=["upgrade", "head"])
"""


async def test_upgrade_check_and_downgrade_work_from_the_repository_root(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    upgraded = alembic("upgrade", "head", settings=empty)
    assert upgraded.returncode == 0, upgraded.stderr
    assert f"is now at {HEAD}" in upgraded.stderr
    assert alembic("current", settings=empty).stdout.strip() == f"{HEAD} (head)"
    assert alembic("check", settings=empty).returncode == 0

    assert alembic("downgrade", "base", settings=empty).returncode == 0
    assert all(rows == [] for rows in (await read_catalog(connection)).values())


async def test_offline_sql_through_psql_gives_the_catalog_of_the_online_run(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade(settings=empty)
    online = await read_catalog(connection)
    await migrations.downgrade("base", settings=empty)

    up = alembic("upgrade", "head", "--sql")
    run = psql(empty, up.stdout)
    assert (up.returncode, run.returncode, run.stderr) == (0, 0, ""), up.stderr + run.stderr
    assert await read_catalog(connection) == online
    assert await migrations.current(settings=empty) == HEAD

    down = alembic("downgrade", "head:base", "--sql")
    run = psql(empty, down.stdout)
    assert (down.returncode, run.returncode, run.stderr) == (0, 0, ""), down.stderr + run.stderr
    assert all(rows == [] for rows in (await read_catalog(connection)).values())


async def test_offline_sql_makes_the_tables_in_the_schema_of_choice(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text('CREATE SCHEMA "my obs"'))
    sql = alembic("upgrade", "head", "--sql", AGENTOBS_SCHEMA="my obs").stdout
    run = psql(empty, sql)

    assert (run.returncode, run.stderr) == (0, "")
    assert (await read_catalog(connection))["tables"] == []
    settings = empty.model_copy(update={"schema_name": "my obs"})
    await migrations.check(settings=settings)


async def test_offline_sql_refuses_tables_that_exist(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE TABLE agent_transformation_events (id integer)"))
    run = psql(empty, alembic("upgrade", "head", "--sql").stdout)

    assert run.returncode != 0
    assert "holds agent_transformation_events, but no revision is recorded" in run.stderr


async def test_offline_sql_of_a_relative_way_to_base_leaves_nothing_either(
    at_head: DatabaseSettings, connection: AsyncConnection
) -> None:
    steps = len(list(migrations.revisions()))
    run = psql(at_head, alembic("downgrade", f"head:-{steps}", "--sql").stdout)

    assert (run.returncode, run.stderr) == (0, "")
    assert all(rows == [] for rows in (await read_catalog(connection)).values())


def test_an_offline_run_that_fails_leaves_stdout_to_sql() -> None:
    run = alembic("upgrade", "head", "--sql", AGENTOBS_SCHEMA="x" * 64)

    assert run.returncode != 0
    assert run.stdout == ""
    assert run.stderr.startswith("agentobs: AGENTOBS_SCHEMA: ")
    assert len(run.stderr.splitlines()) == 1


def test_offline_sql_needs_no_database_and_prints_nothing_else() -> None:
    run = alembic("upgrade", "head", "--sql", AGENTOBS_DATABASE_URL=NOWHERE)

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("BEGIN;")
    assert run.stdout == migrations.sql()


@pytest.mark.parametrize("command", [("history",), ("heads",), ("show", "0001"), ("--help",)])
def test_what_needs_no_database_connects_nowhere(command: tuple[str, ...], tmp_path: Path) -> None:
    elsewhere = alembic(*command, AGENTOBS_DATABASE_URL=NOWHERE)
    without = alembic(*command, AGENTOBS_DATA_DIR=str(tmp_path / "data"))

    assert (elsewhere.returncode, elsewhere.stderr) == (0, "")
    assert (without.returncode, without.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_one_clear_line_without_the_password() -> None:
    run = alembic("upgrade", "head", AGENTOBS_DATABASE_URL=NOWHERE)

    assert run.returncode != 0
    assert "can't connect to postgresql://postgres@127.0.0.1:1/nowhere" in run.stderr
    assert "Traceback" not in run.stderr
    assert "hunter2" not in run.stderr + run.stdout


def test_the_migration_url_wins_over_the_services_url(empty: DatabaseSettings) -> None:
    url = environment(empty)["AGENTOBS_DATABASE_URL"]
    run = alembic("upgrade", "head", AGENTOBS_DATABASE_URL=NOWHERE, AGENTOBS_MIGRATION_URL=url)

    assert run.returncode == 0, run.stderr


async def test_tables_without_a_revision_are_one_clear_line(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE TABLE agent_definitions (id integer)"))
    run = alembic("upgrade", "head", settings=empty)

    assert run.returncode != 0
    assert "schema public holds agent_definitions" in run.stderr
    assert "Traceback" not in run.stderr
    tables = (await read_catalog(connection))["tables"]
    assert [name for name, _ in tables] == ["agent_definitions"]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (alembic, ("upgrade", "head")),
        (agentobs, ("db", "upgrade")),
        (agentobs, ("db", "current")),
    ],
)
async def test_a_revision_of_anybodys_sends_no_control_code_to_the_terminal(
    at_head: DatabaseSettings,
    connection: AsyncConnection,
    program: Callable[..., subprocess.CompletedProcess[str]],
    arguments: tuple[str, ...],
) -> None:
    await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = E'9\\x1b[31m'"))

    result = program(*arguments, settings=at_head)

    assert "9�[31m" in result.stdout + result.stderr
    assert "\x1b" not in result.stdout + result.stderr


async def test_eight_upgraders_at_once_all_succeed(empty: DatabaseSettings) -> None:
    command = [sys.executable, "-c", RACE]
    racers = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment(empty),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=120)[1] for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * 8, outputs
    assert sum(f"is now at {HEAD}" in output for output in outputs) == 1
    assert sum(f"is at {HEAD}: nothing to do" in output for output in outputs) == 7
    async with connect(empty) as connection:
        await connection.execute(text("SELECT FROM router_performance_metrics"))
    await migrations.check(settings=empty)
