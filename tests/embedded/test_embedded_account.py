from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.embedded import (
    FAST,
    REPOSITORY,
    USER_SCRIPT,
    needs_root,
    processes_of,
    query,
    user_of,
    wait_until,
)

from agentobs.embedded import binaries, running_server, server_status, stop_server
from agentobs.embedded.account import server_account
from agentobs.embedded.layout import layout_of
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["support.embedded_fixtures"]

_UNPRIVILEGED: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}


@needs_root
def test_root_runs_the_server_as_another_user(data_folder: Path) -> None:
    users = pwd.getpwall()
    with running_server(data_folder, options=FAST):
        pid = server_status(data_folder).pid
        assert pid is not None
        process = psutil.Process(pid)
        assert 0 not in process.uids() + process.gids()
        assert process.uids().real == server_account(data_folder).uid
    assert pwd.getpwall() == users


@needs_root
def test_root_serves_the_data_of_a_user_as_that_user(open_folder: Path) -> None:
    folder = open_folder / "of a user"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with running_server(folder, options=FAST):
        pid = server_status(folder).pid
        assert pid is not None
        assert psutil.Process(pid).uids().real == 65534
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
    stop_server(folder)


@needs_root
def test_folder_that_the_server_cannot_enter_is_refused_and_left_alone(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(EmbeddedServerError, match=r"set AGENTOBS_DATA_DIR to .*/var/lib/agentobs"),
        running_server(closed / "data", options=FAST),
    ):
        pass
    assert not list(closed.iterdir())
    assert (closed.stat().st_mode & 0o777, closed.stat().st_uid) == (0o700, 0)


@needs_root
def test_folder_with_files_of_root_keeps_its_owner(open_folder: Path, template: Path) -> None:
    folder = open_folder / "shared"
    folder.mkdir(mode=0o755)
    (folder / "notes").touch()
    subprocess.run(["cp", "-a", template / "pgdata-18", folder], check=True)
    with running_server(folder, options=FAST) as server:
        assert query(server, "SELECT 1") == "1"
        assert (folder.stat().st_uid, (folder / "notes").stat().st_uid) == (0, 0)
    stop_server(folder)


@needs_root
def test_binaries_that_the_server_cannot_reach_are_copied_once(
    own_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_folder / "only root"
    closed.mkdir(mode=0o700)
    package = binaries.find_binaries().parents[1]
    for name in (package.name, f"{package.name}.libs"):
        if package.with_name(name).exists():
            (closed / name).symlink_to(package.with_name(name))
    monkeypatch.setattr(binaries, "_find_package", lambda: closed / package.name)

    copies = []
    for _ in range(2):
        with running_server(own_folder, options=FAST) as server:
            assert query(server, "SELECT count(*) FROM pg_timezone_names") != "0"
            (copy,) = own_folder.glob("binaries-*")
            copies.append((copy.name, copy.stat().st_ino, copy.stat().st_mtime_ns))
            pid = server_status(own_folder).pid
            assert pid is not None
            assert Path(psutil.Process(pid).exe()).is_relative_to(copy)
        stop_server(own_folder)
    assert copies[0] == copies[1]
    assert not list(own_folder.glob(".binaries-*"))


@pytest.fixture(scope="module")
def modules(open_folder: Path) -> Path:
    """What the user script imports, where every uid can read it."""
    folder = open_folder / "modules"
    shutil.copytree(REPOSITORY / "agentobs", folder / "agentobs")
    shutil.copy(USER_SCRIPT, folder)
    package = binaries.find_binaries().parents[1]
    for name in (package.name, f"{package.name}.libs", "platformdirs"):
        if (source := package.with_name(name)).exists():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("include"))
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def python_for_all() -> str:
    """An interpreter that an unprivileged user can run."""
    names = [f"python3.{minor}" for minor in (14, 13, 12, 11)]
    found = [shutil.which(name, path="/usr/local/bin:/usr/bin") for name in names]
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, *filter(None, found)):
        try:
            result = subprocess.run([python, "-c", check], check=False, cwd="/", **_UNPRIVILEGED)
        except PermissionError:
            continue
        if result.returncode == 0:
            return python
    pytest.skip("no Python of 3.11 or later that an unprivileged user can run")


@pytest.fixture
def home(open_folder: Path) -> Iterator[Path]:
    folder = open_folder / "home of nobody"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    yield folder
    stop_server(folder / ".local/share/agentobs")
    shutil.rmtree(folder)


@needs_root
def test_unprivileged_user_needs_nothing_set_up_and_leaves_nothing_running(
    home: Path, modules: Path, python_for_all: str
) -> None:
    with user_of(
        None,
        python=python_for_all,
        environment={"HOME": str(home), "PATH": os.defpath, "PYTHONPATH": str(modules)},
        process_options=_UNPRIVILEGED,
        script=modules / USER_SCRIPT.name,
    ) as user:
        assert user.wait_ready().started
        folder = home / ".local/share/agentobs"
        assert layout_of(folder).cluster.exists()
        assert {process.uids().real for process in processes_of(home)} == {65534}
        user.process.kill()
        user.process.wait()
        wait_until(lambda: not processes_of(home))
