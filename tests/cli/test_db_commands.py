from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.shell import HEAD, REPOSITORY, agentobs, connect
from typer.core import TyperGroup
from typer.main import get_group
from typer.testing import CliRunner

from agentobs.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs import DatabaseSettings

# A port where nothing listens: whoever connects to it fails.
NOWHERE = "postgresql://postgres:hunter2@127.0.0.1:1/nowhere"


def test_the_migrations_run_as_agentobs_db(agentobs_empty_database: DatabaseSettings) -> None:
    for command, answer in (
        (("upgrade",), f"is now at {HEAD}"),
        (("current",), HEAD),
        (("check",), "matches the models"),
        (("downgrade", "-1"), "is now at "),
        (("upgrade", "+1"), f"is now at {HEAD}"),
        (("downgrade", "base"), "is now at base"),
        (("current",), "base"),
    ):
        run = agentobs("db", *command, settings=agentobs_empty_database)
        assert run.returncode == 0, run.stderr
        assert answer in run.stdout + run.stderr


def test_check_of_a_database_behind_is_a_line_and_exit_code_one(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    run = agentobs("db", "check", settings=agentobs_empty_database)

    assert run.returncode == 1
    assert run.stderr == (
        f"agentobs: the database is at base and the package at {HEAD}: run `agentobs db upgrade`\n"
    )


async def test_check_says_nothing_of_what_the_libraries_wonder_about(
    agentobs_database: DatabaseSettings,
) -> None:
    check = "agent_transformation_events_quality_check"
    async with connect(agentobs_database) as connection:
        for change in (
            f"DROP CONSTRAINT {check}",
            f"ADD CONSTRAINT {check} CHECK (quality_score <= 1) NOT VALID",
        ):
            await connection.exec_driver_sql(f"ALTER TABLE agent_transformation_events {change}")

    run = agentobs("db", "check", settings=agentobs_database)

    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("db", "history"), ("db", "sql"), ("db", "upgrade", "--help")],
)
def test_what_needs_no_database_starts_no_server_and_connects_nowhere(
    arguments: tuple[str, ...], tmp_path: object
) -> None:
    run = agentobs(*arguments, AGENTOBS_DATA_DIR=f"{tmp_path}/data")
    elsewhere = agentobs(*arguments, AGENTOBS_DATABASE_URL=NOWHERE)

    assert (run.returncode, run.stderr) == (0, "")
    assert (elsewhere.returncode, elsewhere.stderr) == (0, "")


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    run = agentobs("db", "upgrade", AGENTOBS_DATABASE_URL=NOWHERE)

    assert run.returncode == 1
    assert run.stderr.startswith("agentobs: can't connect to postgresql://postgres@127.0.0.1")
    assert "hunter2" not in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", [("sync", "examples/agents"), ("list",)])
def test_commands_on_a_database_that_is_not_migrated_say_what_to_run(
    command: tuple[str, ...], agentobs_empty_database: DatabaseSettings
) -> None:
    (group, *rest) = ("agents", *command)
    run = agentobs(
        group,
        *(str(REPOSITORY / word) if "/" in word else word for word in rest),
        settings=agentobs_empty_database,
    )

    assert run.returncode == 1
    assert "run `agentobs db upgrade`" in run.stderr
    assert len(run.stderr.splitlines()) == 1


async def test_a_database_that_takes_no_writes_is_one_line_too(
    agentobs_database: DatabaseSettings,
) -> None:
    async with connect(agentobs_database) as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(
            text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        )
    folder = str(REPOSITORY / "examples/agents")
    run = agentobs("agents", "sync", folder, settings=agentobs_database)

    assert run.returncode == 1
    assert run.stderr.startswith("agentobs: cannot execute INSERT")
    assert len(run.stderr.splitlines()) == 1


def test_commands_on_a_server_that_is_not_there_end_in_one_line() -> None:
    run = agentobs("agents", "list", AGENTOBS_DATABASE_URL=NOWHERE)

    assert run.returncode == 1
    assert run.stderr.startswith("agentobs: can't connect to postgresql://postgres@127.0.0.1")
    assert len(run.stderr.splitlines()) == 1


def test_a_wrong_setting_is_one_line_that_names_it() -> None:
    run = agentobs("db", "current", AGENTOBS_MIGRATION_LOCK_WAIT="soon")

    assert run.returncode == 1
    assert "AGENTOBS_MIGRATION_LOCK_WAIT" in run.stderr
    assert "Traceback" not in run.stderr


def test_every_command_has_a_help_text() -> None:
    assert [name for name, command in _commands_of(get_group(app)) if not command.help] == []


def _commands_of(group: TyperGroup, path: str = "agentobs") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, TyperGroup):
            yield from _commands_of(command, f"{path} {name}")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("statu", "Did you mean 'status'?"), ("commands", "No such command 'commands'")],
)
def test_a_command_that_is_none_is_told(wrong: str, words: str) -> None:
    shown = CliRunner().invoke(app, [wrong])

    assert shown.exit_code == 2
    assert words in shown.output


@pytest.mark.parametrize("module", ["alembic", "sqlalchemy", "agentobs.analytics"])
def test_a_command_waits_for_no_import_that_another_one_needs(module: str) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from agentobs.cli import app; "
        "shown = CliRunner().invoke(app, ['server', '--help']); "
        f"sys.exit(shown.exit_code or {module!r} in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
