from __future__ import annotations

import os
import shutil
import stat
import subprocess
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import pytest
from support.embedded import (
    FAST,
    PATIENCE_SECONDS,
    is_root,
    needs_root,
    processes_of,
    query,
    wait_until,
)

from agentobs.embedded import layout, postmaster, running_server, server_status, stop_server
from agentobs.embedded.binaries import find_binaries
from agentobs.embedded.layout import layout_of
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]


def test_path_with_spaces_quotes_and_shell_characters_works(own_folder: Path) -> None:
    odd = own_folder / """a "b" 'c' $(touch d) `e` ü, f"""
    odd.mkdir()
    layout_of(own_folder).account.own(odd)
    (own_folder / "pgdata-18").rename(odd / "pgdata-18")
    with running_server(odd, options=FAST) as server:
        assert query(server, "SHOW data_directory") == str(odd / "pgdata-18")
    stop_server(odd)
    wait_until(lambda: not processes_of(odd))


@pytest.fixture
def long_folder(own_folder: Path) -> Iterator[Path]:
    folder = own_folder / ("long" * 40)
    folder.mkdir()
    layout_of(own_folder).account.own(folder)
    (own_folder / "pgdata-18").rename(folder / "pgdata-18")
    yield folder
    stop_server(folder)
    wait_until(lambda: not processes_of(folder))
    shutil.rmtree(layout_of(folder).socket_directory, ignore_errors=True)


def test_path_too_long_for_a_socket_gets_a_short_private_folder(long_folder: Path) -> None:
    with running_server(long_folder, options=FAST) as server:
        assert query(server, "SELECT 1") == "1"
        found = server.socket_directory.stat()
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == layout_of(long_folder).account.uid


def test_short_folder_that_others_can_enter_is_refused(long_folder: Path) -> None:
    squatted = layout_of(long_folder).socket_directory
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    with (
        pytest.raises(EmbeddedServerError, match="AGENTOBS_DATA_DIR"),
        running_server(long_folder, options=FAST),
    ):
        pass


@needs_root
def test_short_folder_of_somebody_else_is_refused(long_folder: Path) -> None:
    squatted = layout_of(long_folder).socket_directory
    squatted.mkdir(mode=0o700)
    os.chown(squatted, layout_of(long_folder).account.uid + 1, -1)
    with (
        pytest.raises(EmbeddedServerError, match="AGENTOBS_DATA_DIR"),
        running_server(long_folder, options=FAST),
    ):
        pass


def test_server_opens_no_port_and_lets_nobody_else_in(own_folder: Path) -> None:
    with running_server(own_folder, options=FAST) as server:
        assert query(server, "SHOW listen_addresses") == ""
        assert query(server, "SHOW TimeZone") == "UTC"
        assert query(server, "SHOW server_encoding") == "UTF8"
        modes = [
            stat.S_IMODE(folder.stat().st_mode)
            for folder in (
                server.data_directory,
                server.socket_directory,
                own_folder / "pgdata-18",
            )
        ]
    assert modes == [0o700] * 3


def test_data_is_durable_unless_options_say_otherwise(data_folder: Path) -> None:
    with running_server(data_folder) as server:
        assert query(server, "SHOW fsync") == "on"


def test_pid_file_with_the_pid_of_a_stranger_is_stale(own_folder: Path) -> None:
    account = layout_of(own_folder).account
    # Of the server's own uid: another one's is stale for PostgreSQL itself.
    with subprocess.Popen(["/bin/sleep", "600"], cwd="/", **account.process_options) as stranger:
        try:
            _write_pid_file(own_folder, stranger.pid)
            assert not server_status(own_folder).running
            assert not stop_server(own_folder)
            with running_server(own_folder, options=FAST) as server:
                assert query(server, "SELECT 1") == "1"
            stop_server(own_folder)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_server_started_by_hand_on_the_same_data_is_not_doubled(
    own_folder: Path, open_folder: Path
) -> None:
    account = layout_of(own_folder).account
    sockets = open_folder / "by hand"
    sockets.mkdir()
    account.own(sockets)
    settings = f"-c fsync=off -c listen_addresses= -c unix_socket_directories='{sockets}'"
    pg_ctl: list[str | Path] = [find_binaries() / "pg_ctl", "-D", own_folder / "pgdata-18", "-w"]
    log = sockets / "log"

    def control(*arguments: str | Path) -> None:
        command = [*pg_ctl, *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=DEVNULL, **account.process_options)

    control("-o", settings, "-l", log, "start")
    try:
        with pytest.raises(EmbeddedServerError, match="pre-existing shared memory"):
            start_again(own_folder)
    finally:
        control("stop")
    assert "database system is shut down" in log.read_text()


def start_again(folder: Path) -> None:
    with running_server(folder, options=FAST):
        pass


def _write_pid_file(folder: Path, pid: int) -> None:
    lines = [str(pid), str(folder / "pgdata-18"), "1", "5432", "", "", "1 1", "ready", ""]
    (folder / "pgdata-18" / "postmaster.pid").write_text("\n".join(lines))


def test_failed_start_shows_the_log_and_the_way_out(data_folder: Path) -> None:
    with (
        pytest.raises(EmbeddedServerError) as caught,
        running_server(data_folder, options={"shared_buffers": "nonsense"}),
    ):
        pass
    assert "nonsense" in str(caught.value)
    assert "AGENTOBS_DATABASE_URL" in str(caught.value)
    assert caught.value.log_file == data_folder / "server.log"


def test_log_is_cut_at_a_start_once_it_is_large(data_folder: Path) -> None:
    log = data_folder / "server.log"
    os.truncate(log, 11 * 1024 * 1024)
    with running_server(data_folder, options=FAST):
        assert log.stat().st_size < 1024 * 1024


def test_folder_that_is_not_ours_to_write_is_an_error_with_the_way_out(open_folder: Path) -> None:
    blocked = open_folder / "file"
    blocked.touch()
    with pytest.raises(EmbeddedServerError, match="AGENTOBS_DATA_DIR"):
        start_again(blocked / "data")


@pytest.mark.skipif(not is_root, reason="the folder of the user is the default only without root")
def test_data_of_root_is_in_a_folder_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTOBS_DATA_DIR", raising=False)
    assert layout.default_data_directory() == layout.ROOT_DATA_DIRECTORY


def test_data_directory_of_the_environment_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTOBS_DATA_DIR", str(tmp_path))
    assert layout.default_data_directory() == tmp_path


def test_waits_are_shorter_than_the_patience_of_these_tests() -> None:
    assert postmaster.POLL_SECONDS < PATIENCE_SECONDS < postmaster.PATIENCE_SECONDS
