from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
from support.embedded import FAST, keepers_of, kill_and_wait, processes_of, query, wait_until

from agentobs.embedded import running_server, server_status, start_server, stop_server

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]


def test_started_server_stays_until_it_is_stopped(data_folder: Path) -> None:
    assert start_server(data_folder).started
    with running_server(data_folder) as server:
        assert not server.started
    status = server_status(data_folder)
    assert (status.running, status.persistent) == (True, True)
    assert stop_server(data_folder)
    assert not processes_of(data_folder)


def test_start_keeps_a_server_that_was_running_for_its_users(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST):
        assert not start_server(data_folder).started
    # The keeper has nothing left to watch.
    wait_until(lambda: not keepers_of(data_folder))
    assert server_status(data_folder).running


def test_stop_is_idempotent(data_folder: Path) -> None:
    start_server(data_folder)
    assert [stop_server(data_folder) for _ in range(3)] == [True, False, False]


def test_stop_and_status_make_nothing_where_there_is_nothing(empty_folder: Path) -> None:
    status = server_status(empty_folder)
    assert (status.running, status.persistent, status.pid) == (False, False, None)
    assert not stop_server(empty_folder)
    assert not empty_folder.exists()


def test_status_names_the_server(data_folder: Path) -> None:
    server = start_server(data_folder)
    status = server_status(data_folder)
    assert status.version == query(server, "SHOW server_version")
    assert status.url == server.url
    assert status.pid is not None
    assert str(data_folder / "pgdata-18") in psutil.Process(status.pid).cmdline()


def test_server_started_for_users_after_a_crash_is_not_persistent(data_folder: Path) -> None:
    start_server(data_folder)
    pid = server_status(data_folder).pid
    assert pid is not None
    kill_and_wait(psutil.Process(pid))
    with running_server(data_folder, options=FAST) as server:
        assert server.started
        assert not server_status(data_folder).persistent
    wait_until(lambda: not processes_of(data_folder))
