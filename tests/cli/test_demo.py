"""The three commands of `make demo`."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.embedded import processes_of, wait_until
from support.shell import REPOSITORY, SCRIPTS, environment

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]

COUNT = """
    SELECT (SELECT count(*) FROM agent_definitions),
           (SELECT count(*) FROM agent_transformation_events),
           (SELECT count(*) FROM router_performance_metrics)
"""


def _run(data: Path, *command: str) -> str:
    run = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment(AGENTOBS_DATA_DIR=str(data)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _demo(data: Path) -> str:
    _run(data, str(SCRIPTS / "alembic"), "upgrade", "head")
    _run(data, str(SCRIPTS / "agentobs"), "agents", "sync", "examples/agents")
    return _run(data, sys.executable, "-m", "examples.demo")


def _count(data: Path) -> str:
    return _run(data, str(SCRIPTS / "agentobs"), "server", "psql", "--", "-AtF,", "-c", COUNT)


def test_the_demo_shows_a_tree_and_a_table_and_leaves_nothing_running(empty_folder: Path) -> None:
    shown = _demo(empty_folder)
    assert "Wrote the workflow." in shown
    assert re.search(r"── ✗ agent-debug-intelligence .* TimeoutError", shown)
    assert re.search(r"agent-debug-intelligence +2 +50 +6450 ", shown)
    assert "What to try next" in shown
    assert _count(empty_folder) == "8,7,7\n"

    again = _demo(empty_folder)
    assert "The workflow is there already." in again
    assert again.partition("\n")[2] == shown.partition("\n")[2]
    assert _count(empty_folder) == "8,7,7\n"
    wait_until(lambda: not processes_of(empty_folder))


def test_the_makefile_runs_these_commands() -> None:
    recipe = (REPOSITORY / "Makefile").read_text().partition("demo: $(READY)")[2].split("\n\n")[0]

    assert [line.strip() for line in recipe.splitlines()[1:]] == [
        "$(BIN)/alembic upgrade head",
        "$(BIN)/agentobs agents sync examples/agents",
        "$(BIN)/python -m examples.demo",
    ]


def test_make_leaves_the_database_of_a_shell_alone(tmp_path: Path) -> None:
    of_a_shell = {"HOST": "db.example.org", "DATABASE": "app", "SCHEMA": "of_a_shell"}
    variables = {f"AGENTOBS_{name}": value for name, value in of_a_shell.items()}
    shown = _run(
        tmp_path,
        "env",
        *(f"{name}={value}" for name, value in variables.items()),
        "AGENTOBS_TEST_DATABASE_URL=of_tests",
        "make",
        "--silent",
        "--eval=shown: ; @env",
        "shown",
    )

    own = {line for line in shown.splitlines() if line.startswith("AGENTOBS_")}
    assert own == {f"AGENTOBS_DATA_DIR={tmp_path}", "AGENTOBS_TEST_DATABASE_URL=of_tests"}
