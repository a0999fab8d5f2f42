"""The pytest plugin as a service's project has it, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.embedded import processes_of, wait_until
from support.shell import environment

from agentobs.testing.servers import ServerSource, open_server

if TYPE_CHECKING:
    from sqlalchemy import URL

CONFTEST = 'pytest_plugins = ["agentobs.testing"]\n'
TESTS = """
import pytest
from sqlalchemy import func, select
from agentobs import AgentDefinition

def definition():
    return AgentDefinition(agent_name="agent-a", agent_type="x", yaml_config={})

async def count(session):
    return await session.scalar(select(func.count()).select_from(AgentDefinition))

@pytest.mark.asyncio
@pytest.mark.parametrize("time", [1, 2])
async def test_what_is_committed_is_rolled_back(agentobs_session, time):
    assert await count(agentobs_session) == 0
    agentobs_session.add(definition())
    await agentobs_session.commit()
    assert await count(agentobs_session) == 1

@pytest.mark.asyncio
@pytest.mark.parametrize("time", [1, 2])
async def test_a_clone_is_the_tests_own(agentobs_engine, time):
    from agentobs import create_session_factory
    async with create_session_factory(agentobs_engine).begin() as session:
        assert await count(session) == 0
        session.add(definition())

def test_settings_are_those_of_the_clone(agentobs_database):
    assert agentobs_database.schema_name is None
    assert "agentobs_test_" in agentobs_database.database_url.get_secret_value()
"""


def _pytest(folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_service.py").write_text(TESTS)
    # As strict as a project can be; its own settings must not reach the fixtures.
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\npytest_alembic_enabled =\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment() | extra | {"AGENTOBS_SCHEMA": "elsewhere"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_service_gets_sessions_engines_and_databases(
    tmp_path: Path, agentobs_server: URL
) -> None:
    url = agentobs_server.set(drivername="postgresql").render_as_string(hide_password=False)
    run = _pytest(tmp_path, AGENTOBS_TEST_DATABASE_URL=url)

    assert "agentobs: PostgreSQL from: url (AGENTOBS_TEST_DATABASE_URL is set)" in run.stdout
    assert "5 passed" in run.stdout, run.stdout


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://postgres:hunter2@127.0.0.1:1/nowhere", "can't connect to postgresql://"),
        ("hunter2", "AGENTOBS_TEST_DATABASE_URL is no URL"),
    ],
)
def test_a_server_that_is_not_there_ends_the_run_with_one_line(
    url: str, words: str, tmp_path: Path
) -> None:
    run = _pytest(tmp_path, AGENTOBS_TEST_DATABASE_URL=url)

    assert run.returncode != 0
    assert words in run.stdout + run.stderr
    assert "hunter2" not in run.stdout + run.stderr
    assert len(run.stdout.splitlines()) < 20


def _fail_on_the_server(seen: list[Path]) -> None:
    with open_server(ServerSource("embedded", "asked for")) as url:
        seen.append(Path(str(url.query["host"])).parent)
        assert processes_of(seen[0])
        raise RuntimeError


def test_the_embedded_server_is_stopped_before_its_folder_goes_where_its_user_fails() -> None:
    seen: list[Path] = []
    with pytest.raises(RuntimeError):
        _fail_on_the_server(seen)

    assert not seen[0].parent.exists()
    wait_until(lambda: not processes_of(seen[0]))
