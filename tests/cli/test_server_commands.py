from __future__ import annotations

from typing import TYPE_CHECKING

from support.embedded import processes_of, wait_until
from support.shell import HEAD, agentobs, alembic

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]


def _server(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return agentobs("server", *arguments, AGENTOBS_DATA_DIR=str(folder))


def test_with_no_url_alembic_and_agentobs_share_the_embedded_server(empty_folder: Path) -> None:
    upgraded = alembic("upgrade", "head", AGENTOBS_DATA_DIR=str(empty_folder))
    current = agentobs("db", "current", AGENTOBS_DATA_DIR=str(empty_folder))

    assert upgraded.returncode == 0, upgraded.stderr
    assert current.stdout == f"{HEAD}\n"
    for run in (upgraded, current):
        notices = [line for line in run.stderr.splitlines() if "embedded PostgreSQL" in line]
        assert len(notices) == 1
        assert str(empty_folder) in notices[0]
    wait_until(lambda: not processes_of(empty_folder))


def test_a_server_that_was_started_runs_until_it_is_stopped(empty_folder: Path) -> None:

    started = _server(empty_folder, "start")
    assert started.returncode == 0, started.stderr
    assert _server(empty_folder, "url").stdout.strip() in started.stdout
    status = _server(empty_folder, "status")
    assert status.returncode == 0
    assert "yes, until stopped" in status.stdout
    assert processes_of(empty_folder)

    assert "has stopped" in _server(empty_folder, "stop").stdout
    assert "was not running" in _server(empty_folder, "stop").stdout
    assert _server(empty_folder, "status").returncode == 3
    wait_until(lambda: not processes_of(empty_folder))


def test_psql_runs_on_the_server_and_gives_its_exit_code(data_folder: Path) -> None:
    good = _server(data_folder, "psql", "--", "-Atc", "SELECT 6 * 7")
    bad = _server(data_folder, "psql", "--", "-c", "SELECT FROM nothing")

    assert (good.returncode, good.stdout) == (0, "42\n")
    assert bad.returncode == 1
    assert "nothing" in bad.stderr


def test_the_url_of_a_server_that_is_down_comes_with_a_warning(data_folder: Path) -> None:
    run = _server(data_folder, "url")

    assert run.returncode == 3
    assert run.stdout.startswith("postgresql://")
    assert "agentobs server start" in run.stderr


def test_the_url_is_one_that_agentobs_takes(empty_folder: Path) -> None:
    url = _server(empty_folder, "start").stdout.splitlines()[-1]
    run = alembic("upgrade", "head", AGENTOBS_DATABASE_URL=url)

    assert run.returncode == 0, run.stderr
    assert "embedded" not in run.stderr
