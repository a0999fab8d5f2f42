"""The server process: start it, know that it is ours, ask it to stop.

`server.lock` is inherited by every process of the server, so that the kernel tells whether one is
alive. A pid in a file tells nothing: after a crash the number may belong to anyone, and pg_ctl
signals it all the same.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from agentobs.embedded import locks
from agentobs.embedded.access import write_access_rules
from agentobs.embedded.detached import server_environment, spawn_detached
from agentobs.embedded.folders import make_socket_directory, remove_socket_directory
from agentobs.embedded.layout import PORT
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentobs.embedded.layout import Layout

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.01
_LARGEST_LOG = 10 * 1024 * 1024
_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 16 * 1024
_STATUS_LINE = 7
_PEER_CREDENTIALS = struct.Struct("3i")


def launch(layout: Layout, programs: Path, options: Mapping[str, str], server_lock: int) -> None:
    """Start the server and return at once; `server_lock` is held, and is the server's from now on.

    The stale pid goes to PG_GRANDPARENT_PID, as pg_ctl does for another reason: PostgreSQL then
    takes that number for ours and looks at its shared memory instead, which tells a living server
    on the same data folder from a stranger that got the number.
    """
    make_socket_directory(layout)
    write_access_rules(layout)
    for leftover in (layout.socket, layout.socket_lock):
        leftover.unlink(missing_ok=True)
    environment = server_environment()
    if (stale := _recorded_pid(layout)) is not None:
        environment["PG_GRANDPARENT_PID"] = str(stale)
    log = _open_log(layout)
    try:
        spawn_detached(
            [str(programs / "postgres"), "-D", str(layout.cluster), *_settings(layout, options)],
            environment=environment,
            inherited=server_lock,
            output=log,
            process_options=layout.account.process_options,
        )
    finally:
        os.close(log)


def _settings(layout: Layout, options: Mapping[str, str]) -> list[str]:
    quoted = str(layout.socket_directory).replace('"', '""')
    settings = {
        **options,
        "hba_file": str(layout.access_rules),
        "ident_file": str(layout.known_users),
        "listen_addresses": "",
        "logging_collector": "off",
        "port": str(PORT),
        "unix_socket_directories": f'"{quoted}"',
        "unix_socket_permissions": "0700",
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _open_log(layout: Layout) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(layout.log_file, flags, 0o600)
    layout.account.own(log)
    if os.fstat(log).st_size > _LARGEST_LOG:
        os.ftruncate(log, 0)
    return log


def is_ready(layout: Layout) -> bool:
    """Tell whether the server takes connections; one that is stopping is not ready."""
    return _pid_file(layout)[_STATUS_LINE].strip() == "ready" and _listener(layout) is not None


def verified_pid(layout: Layout) -> int | None:
    """Return the pid of the living server, where its pid file and its socket name the same one."""
    recorded = _recorded_pid(layout)
    return recorded if recorded is not None and _listener(layout) == recorded else None


def stop(layout: Layout) -> bool:
    """Stop the server fast and wait for its last process; tell whether there was one.

    The caller holds start.lock.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    asked: int | None = None
    while not locks.is_free(layout.server_lock):
        pid = verified_pid(layout)
        if pid is not None and pid != asked:
            os.kill(pid, signal.SIGINT)
            asked = pid
        if time.monotonic() > deadline:
            raise failure(layout, f"PostgreSQL did not stop within {PATIENCE_SECONDS:.0f} seconds")
        time.sleep(POLL_SECONDS)
    remove_socket_directory(layout)
    return asked is not None


def failure(layout: Layout, what: str) -> EmbeddedServerError:
    """Return the error for `what`, with the server's last words and the way out."""
    return EmbeddedServerError(
        f"{what}. The end of {layout.log_file}:\n{_log_tail(layout)}\n"
        "Mend what it says, or set AGENTOBS_DATA_DIR to another folder, "
        "or AGENTOBS_DATABASE_URL to a server of yours",
        log_file=layout.log_file,
    )


def _log_tail(layout: Layout) -> str:
    try:
        with layout.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:]) or "    (empty)"


def _pid_file(layout: Layout) -> list[str]:
    try:
        lines = layout.postmaster_pid.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # The server writes it line by line.
    return lines + [""] * (_STATUS_LINE + 1 - len(lines))


def _recorded_pid(layout: Layout) -> int | None:
    first = _pid_file(layout)[0].strip()
    return int(first) if first.isdecimal() else None


def _listener(layout: Layout) -> int | None:
    """Return who listens on the socket: backends close it, so it is the postmaster."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(os.fsencode(layout.socket))
        except OSError:
            return None
        if sys.platform == "linux":
            size = _PEER_CREDENTIALS.size
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid: int = _PEER_CREDENTIALS.unpack(peer)[0]
            return pid
    # The folder is the server's alone: the listener is who wrote the pid file.
    return _recorded_pid(layout)
