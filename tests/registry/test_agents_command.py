from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from agentobs.cli.agents import app
from agentobs.errors import DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.settings import DatabaseSettings

DEFINITION = "agent_type: specialist\ndomain: reading\ncapabilities: [a, b]\ntriggers: [c]\n"


@pytest.fixture
def folder(
    tmp_path: Path, agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> Path:
    url = agentobs_database.database_url
    assert url is not None
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url.get_secret_value())
    (tmp_path / "a.yaml").write_text(f"name: agent-a\n{DEFINITION}")
    return tmp_path


def agents(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_sync_tells_what_it_did_and_stores_it(folder: Path) -> None:
    first = agents("sync", str(folder))
    second = agents("sync", str(folder))

    assert first.exit_code == second.exit_code == 0
    assert "agent-a" in first.stdout
    assert "1 added, 0 updated, 0 reactivated, 0 deactivated, 0 unchanged" in first.stdout
    assert second.stdout == (
        "0 added, 0 updated, 0 reactivated, 0 deactivated, 1 unchanged, 0 failed\n"
    )
    assert first.stderr == ""


def test_a_file_that_cannot_be_read_is_named_with_line_and_reason_and_exits_1(
    folder: Path,
) -> None:
    (folder / "b.yaml").write_text("name: b\nmore: [\n")

    result = agents("sync", str(folder))

    assert result.exit_code == 1
    assert f"error: {folder / 'b.yaml'}:3: is not valid YAML" in result.stderr
    assert "1 added" in result.stdout
    assert "agent-a" in agents("list").stdout


def test_warnings_go_to_stderr_and_exit_0(folder: Path) -> None:
    (folder / "a.yaml").write_text(f"name: agent-a\nmode: x\nmode: y\n{DEFINITION}")

    result = agents("sync", str(folder))

    assert result.exit_code == 0
    assert f"warning: {folder / 'a.yaml'}: line 3: key 'mode' stands twice" in result.stderr


def test_a_dry_run_stores_nothing(folder: Path) -> None:
    result = agents("sync", "--dry-run", str(folder))

    assert "1 added" in result.stdout
    assert "nothing is stored" in result.stdout
    assert "agent-a" not in agents("list").stdout


def test_prune_and_root_reach_the_registry(folder: Path) -> None:
    (folder / "b.yaml").write_text(f"name: agent-b\n{DEFINITION}")
    agents("sync", "--root", "team", str(folder))
    (folder / "b.yaml").unlink()

    result = agents("sync", "--root", "team", "--prune", str(folder))

    assert "1 deactivated" in result.stdout
    assert "team/b.yaml" in result.stdout
    assert "agent-b" not in agents("list").stdout


def test_list_shows_the_active_agents(folder: Path) -> None:
    agents("sync", str(folder))

    line = next(line for line in agents("list").stdout.splitlines() if "agent-a" in line)

    assert line.split()[:6] == ["agent-a", "1.0.0", "specialist", "reading", "2", "1"]


def test_long_names_and_paths_are_never_cut(folder: Path) -> None:
    name = "agent-" + "long-" * 30
    (folder / "a.yaml").write_text(f"name: {name}\n{DEFINITION}")

    synced, listed = agents("sync", str(folder)), agents("list")

    assert f"{name}  1.0.0    {folder / 'a.yaml'}" in synced.stdout
    assert name in listed.stdout


def test_nothing_in_a_file_reaches_the_terminal_as_markup_or_control_code(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        f'name: "[red]a"\n"[bold]\\e[1m": 1\n"[bold]\\e[1m": 2\n{DEFINITION}'
    )

    result = agents("sync", str(folder))

    assert "[red]a" in result.stdout
    assert "[bold]" in result.stderr
    assert "\x1b" not in result.output


def test_a_missing_folder_is_an_error_that_names_it(folder: Path) -> None:
    result = agents("sync", str(folder / "none"))

    assert isinstance(result.exception, DefinitionError)
    assert str(folder / "none") in str(result.exception)
