"""Every text that a command takes: an answer or a refusal, and nothing else is changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.hostile import now
from support.shell import url_of
from typer.main import get_command
from typer.testing import CliRunner

from agentobs.cli import app
from agentobs.errors import AgentobsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.hostile import State

    from agentobs import DatabaseSettings

HOSTILE = "'; DROP TABLE canary.kept; --\"%s :a\\:b {} }} $$ $1 `x` $.a ? (@) [red]\x1b[31m"
# What it is given is psql's, whose business SQL is.
LEFT_OUT = {("server", "psql")}


def commands(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command with the words that call it."""
    for name, command in getattr(found, "commands", {}).items():
        yield from commands(command, (*path, name))
    if path and found.params and path not in LEFT_OUT:
        yield path, found


def arguments_with(command: Any, tried: Any, given: str) -> list[str]:
    """Return arguments where the one that is tried, and whatever else is wanted, is the text."""
    wanted = [each for each in command.params if each is tried or each.required]
    options = [f"{each.opts[0]}={given}" for each in wanted if each.opts[0].startswith("-")]
    return [*options, "--", *(given for each in wanted if not each.opts[0].startswith("-"))]


CASES = {
    f"{' '.join(path)} {tried.opts[0]}": (path, command, tried)
    for path, command in commands(get_command(app))
    for tried in command.params
    if not getattr(tried, "is_flag", False)
}


@pytest.fixture(autouse=True)
def place(guarded: DatabaseSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(guarded))
    monkeypatch.setenv("AGENTOBS_RECORDER_FOLDER", str(tmp_path))


def test_every_command_that_takes_a_text_is_tried() -> None:
    assert {"trace workflow", "db upgrade revision", "maintain --archive"} <= CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_text_that_looks_like_sql_is_taken_for_what_it_stands_for(
    guarded: DatabaseSettings, untouched: State, name: str
) -> None:
    path, command, tried = CASES[name]

    done = CliRunner().invoke(app, [*path, *arguments_with(command, tried, HOSTILE)])

    assert isinstance(done.exception, AgentobsError | SystemExit | None)
    assert done.exit_code in {0, 1, 2, 3}
    assert asyncio.run(now(guarded)) == untouched
