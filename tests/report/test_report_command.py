"""agentobs report, as it is called from a shell."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.shell import environment, url_of
from typer.testing import CliRunner, Result

from agentobs.cli import app
from agentobs.errors import AgentobsError, InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

EXTRA = ["jinja2", "plotly"]
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_the_report_and_prints_its_path_and_size(
    agentobs_database: DatabaseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(agentobs_database))
    path = tmp_path / "report.html"
    found = run("--since", "7d", "-o", path)

    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout == f"{path}  {path.stat().st_size / 1024:,.0f} KiB\n"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "Nothing in this window" in page


def test_a_folder_is_refused_before_the_database_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", NOWHERE)
    found = run("-o", tmp_path)

    assert found.exit_code == 1
    assert isinstance(found.exception, InvalidValueError)
    assert str(found.exception) == f"output {tmp_path} is a folder: name a file in it"


def test_without_the_tables_there_is_an_error_and_no_file(
    agentobs_empty_database: DatabaseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(agentobs_empty_database))
    found = run("-o", tmp_path / "report.html")

    assert isinstance(found.exception, AgentobsError)
    assert "run `agentobs db upgrade`" in str(found.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", EXTRA)
def test_without_the_extra_the_command_says_how_to_install_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", NOWHERE)
    # As Python has a module that can't be imported.
    monkeypatch.setitem(sys.modules, module, None)
    found = run("-o", tmp_path / "report.html")

    assert isinstance(found.exception, MissingExtraError)
    assert "pip install 'agentobs-orm[report]'" in str(found.exception)
    assert list(tmp_path.iterdir()) == []


def test_other_commands_do_not_load_the_extra() -> None:
    code = "import sys, agentobs.cli; print([n for n in sys.argv[1:] if n in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code, *EXTRA],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "[]\n"
