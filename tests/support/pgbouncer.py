"""A PgBouncer in front of the test server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from agentobs.testing.databases import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="there is no pgbouncer on this machine (CI installs it)"
)

_CONFIGURATION = """
[databases]
{database} = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {backends}
pidfile = {folder}/pid
"""


@contextmanager
def pgbouncer(
    server: URL, settings: DatabaseSettings, *, mode: str, backends: int = 20
) -> Iterator[DatabaseSettings]:
    """Yield settings that reach the same database through a PgBouncer in that pool mode.

    Its clients share that many backends.
    """
    assert PROGRAM is not None
    assert settings.database_url is not None
    target = make_url(settings.database_url.get_secret_value())
    folder = Path(tempfile.mkdtemp(prefix="agentobs-pgbouncer-"))
    port = _free_port()
    (folder / "ini").write_text(
        _CONFIGURATION.format(
            database=target.database,
            target=_connection_string(target),
            port=port,
            mode=mode,
            backends=backends,
            folder=folder,
        )
    )
    user = _user_for(target)
    shutil.chown(folder, user)
    process = subprocess.Popen(
        [PROGRAM, "--quiet", folder / "ini"], user=user if os.geteuid() == 0 else None
    )
    try:
        _wait_for(port, process)
        bouncer = server.set(host="127.0.0.1", port=port, query={})
        yield settings_for(bouncer, str(target.database))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _connection_string(target: URL) -> str:
    host = target.query.get("host", target.host)
    port = target.query.get("port", target.port or 5432)
    password = f" password={target.password}" if target.password else ""
    return f"host={host} port={port} dbname={target.database} user={target.username}{password}"


def _user_for(target: URL) -> int:
    """Return who may enter the server's socket folder; PgBouncer refuses to run as root."""
    host = target.query.get("host")
    if isinstance(host, str) and host.startswith("/"):
        return Path(host).stat().st_uid
    return 65534 if os.geteuid() == 0 else os.geteuid()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "pgbouncer did not start"
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)
        else:
            return
