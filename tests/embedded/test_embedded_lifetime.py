from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest
from support.embedded import (
    FAST,
    keeper_of,
    kill_and_wait,
    processes_of,
    query,
    user_of,
    wait_until,
)

from agentobs.embedded import running_server, server_status, stop_server

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_server_and_keeper_end_when_the_last_user_is_killed(
    data_folder: Path, death: signal.Signals
) -> None:
    with user_of(data_folder) as user:
        user.wait_ready()
        user.process.send_signal(death)
        user.process.wait()
        wait_until(lambda: not processes_of(data_folder))


def test_server_ends_when_its_user_is_killed_in_the_middle_of_the_first_start(
    empty_folder: Path,
) -> None:
    with user_of(empty_folder) as user:
        wait_until(lambda: any(empty_folder.glob(".initdb-*")))
        user.process.kill()
        user.process.wait()
    wait_until(lambda: not processes_of(empty_folder))
    assert not (empty_folder / "pgdata-18").exists()

    with running_server(empty_folder, options=FAST) as server:
        assert query(server, "SELECT current_database()") == "agentobs"
    assert not list(empty_folder.glob(".initdb-*"))


def test_server_stays_while_another_user_is_there(data_folder: Path) -> None:
    with user_of(data_folder) as first, user_of(data_folder) as second:
        pid = first.wait_ready().pid
        assert second.wait_ready().pid == pid
        first.process.kill()
        first.process.wait()
        with running_server(data_folder) as server:
            assert not server.started
            assert server_status(data_folder).pid == pid


def test_four_processes_on_an_empty_folder_share_one_server(empty_folder: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(user_of(empty_folder)) for _ in range(4)]
        found = [user.wait_ready() for user in users]
        assert len({each.pid for each in found}) == 1
        assert sum(each.started for each in found) == 1
        for user in users:
            user.leave()


def test_threads_of_one_process_are_users_of_their_own(data_folder: Path) -> None:
    def use(_: int) -> tuple[bool, int | None]:
        with running_server(data_folder, options=FAST) as server:
            return server.started, server_status(data_folder).pid

    with running_server(data_folder, options=FAST), ThreadPoolExecutor(4) as threads:
        pid = server_status(data_folder).pid
        assert set(threads.map(use, range(16))) == {(False, pid)}


def test_whoever_arrives_while_the_server_stops_gets_one_that_answers(data_folder: Path) -> None:
    def come_and_go(_: int) -> list[str]:
        answers = []
        for _ in range(5):
            with running_server(data_folder, options=FAST) as server:
                answers.append(query(server, "SELECT 1"))
        return answers

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(come_and_go, range(3))) == [["1"] * 5] * 3


def test_second_start_is_warm_and_keeps_the_data(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST) as server:
        query(server, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    wait_until(lambda: not processes_of(data_folder))
    with running_server(data_folder, options=FAST) as server:
        assert server.started
        assert query(server, "SELECT answer FROM kept") == "42"


def test_next_user_starts_a_server_again_whose_postmaster_was_killed(data_folder: Path) -> None:
    with user_of(data_folder) as user:
        pid = user.wait_ready().pid
        kill_and_wait(psutil.Process(pid))
        assert (data_folder / "pgdata-18" / "postmaster.pid").exists()
        with running_server(data_folder, options=FAST) as server:
            assert server.started
            assert query(server, "SELECT 1") == "1"
        assert server_status(data_folder).pid != pid


def test_next_user_replaces_a_killed_keeper(data_folder: Path) -> None:
    with user_of(data_folder) as user:
        pid = user.wait_ready().pid
        killed = keeper_of(data_folder)
        kill_and_wait(killed)
        with running_server(data_folder):
            assert keeper_of(data_folder).pid != killed.pid
            assert server_status(data_folder).pid == pid
        user.process.kill()
        user.process.wait()
        wait_until(lambda: not processes_of(data_folder))


def test_user_that_leaves_replaces_a_killed_keeper(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST):
        kill_and_wait(keeper_of(data_folder))
    wait_until(lambda: not processes_of(data_folder))


def test_server_without_user_and_keeper_ends_with_the_next_user(data_folder: Path) -> None:
    with user_of(data_folder) as user:
        pid = user.wait_ready().pid
        kill_and_wait(keeper_of(data_folder))
        user.process.kill()
        user.process.wait()
    assert psutil.pid_exists(pid)
    with running_server(data_folder) as server:
        assert not server.started
    wait_until(lambda: not processes_of(data_folder))


def test_server_stops_under_an_open_connection(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST) as server, ThreadPoolExecutor(1) as threads:
        asleep = threads.submit(query, server, "SELECT pg_sleep(60)")
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: query(server, sleeping) == "1")
        assert stop_server(data_folder)
        with pytest.raises(AssertionError, match="terminating connection"):
            asleep.result()
    assert not server_status(data_folder).running


def test_keeper_holds_no_descriptor_but_its_locks(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST):
        keeper = keeper_of(data_folder)
        names = sorted(each.path.rsplit("/", 1)[-1] for each in keeper.open_files())
        assert names == ["keeper.lock", "start.lock", "users.lock"]
        assert not keeper.net_connections("all")
