"""The embedded server is its user's alone: by folders, by the kernel's word, without a password."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from support.embedded import FAST, keeper_of, needs_root, processes_of, query

from agentobs.embedded import running_server, server_status, stop_server
from agentobs.embedded.layout import layout_of
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]

SECRET = "swordfish-of-a-host"  # noqa: S105 (no one's password)
# Somebody who is on every system, and neither root nor the server's account.
STRANGER = 1
_PROTOCOL = 196_608


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def answer_to(path: Path) -> bytes:
    """Ask for a session of the superuser; return the kind of the server's first message."""
    asked = b"user\0postgres\0database\0agentobs\0\0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(os.fsencode(path))
        connection.sendall(struct.pack("!ii", 8 + len(asked), _PROTOCOL) + asked)
        return connection.recv(1)


def test_no_rule_trusts_anybody(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST) as server:
        rules = query(server, "SELECT DISTINCT type, auth_method, error FROM pg_hba_file_rules")

    assert rules == "local|peer|"


def test_the_rules_mean_the_servers_account_and_root(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST) as server:
        found = query(server, "SELECT sys_name, error FROM pg_ident_file_mappings ORDER BY 1")

    uids = {pwd.getpwnam(line.removesuffix("|")).pw_uid for line in found.splitlines()}
    assert uids == {0, layout_of(data_folder).account.uid}


@needs_root
def test_another_user_does_not_reach_the_socket(data_folder: Path) -> None:
    with (
        running_server(data_folder, options=FAST),
        acting_as(STRANGER),
        pytest.raises(PermissionError),
    ):
        answer_to(layout_of(data_folder).socket)


@needs_root
def test_another_user_is_refused_where_somebody_has_opened_the_folders(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST):
        found = layout_of(data_folder)
        folders = (data_folder, found.socket_directory)
        for path in (*folders, found.socket):
            path.chmod(0o777)

        with acting_as(STRANGER):
            refused = answer_to(found.socket)
        with acting_as(found.account.uid):
            admitted = answer_to(found.socket)
        for path in folders:
            path.chmod(0o700)

    assert (refused, admitted) == (b"E", b"R")


def test_no_role_has_a_password(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST) as server:
        assert query(server, "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL") == "0"
        assert server.url.startswith("postgresql://postgres@/")


def test_files_beside_the_data_are_their_owners_alone(data_folder: Path) -> None:
    with running_server(data_folder, options=FAST):
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in data_folder.iterdir()
            if not path.is_dir()
        }
        socket_mode = stat.S_IMODE(layout_of(data_folder).socket.stat().st_mode)

    assert {"pg_hba.conf", "pg_ident.conf", "server.log"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert socket_mode == 0o700


def test_rules_that_somebody_has_loosened_are_strict_again_at_the_next_start(
    data_folder: Path,
) -> None:
    (data_folder / "pg_hba.conf").write_text("local all all trust\n")

    with running_server(data_folder, options={**FAST, "hba_file": "/dev/null"}) as server:
        assert query(server, "SELECT DISTINCT auth_method FROM pg_hba_file_rules") == "peer"


def test_a_link_in_the_place_of_the_rules_is_not_followed(
    data_folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("kept")
    (data_folder / "pg_hba.conf").unlink()
    (data_folder / "pg_hba.conf").symlink_to(elsewhere)

    with (
        pytest.raises(EmbeddedServerError, match="AGENTOBS_DATA_DIR"),
        running_server(data_folder, options=FAST),
    ):
        pass

    assert elsewhere.read_text() == "kept"
    (data_folder / "pg_hba.conf").unlink()


def test_a_server_listens_on_nothing_but_its_socket(data_folder: Path) -> None:
    with running_server(data_folder, options={**FAST, "listen_addresses": "*"}):
        pid = server_status(data_folder).pid
        assert pid is not None
        assert psutil.Process(pid).net_connections("inet") == []


def test_processes_that_stay_hold_none_of_the_hosts_secrets(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AGENTOBS_DATABASE_URL", "AGENTOBS_PASSWORD", "PGPASSWORD", "SOME_API_KEY"):
        monkeypatch.setenv(name, SECRET)

    with running_server(data_folder, options=FAST):
        processes = processes_of(data_folder)
        assert keeper_of(data_folder) in processes
        # The postmaster, its children and the keeper.
        assert len(processes) > 2
        for process in processes:
            assert SECRET not in str(process.environ())
            assert SECRET not in str(process.cmdline())
    stop_server(data_folder)
