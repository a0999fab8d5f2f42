"""Find or start the server, keep it, stop it, look at it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import TYPE_CHECKING
from urllib.parse import quote

from agentobs.embedded import locks, postmaster
from agentobs.embedded.binaries import find_binaries, server_version
from agentobs.embedded.cluster import DATABASE, SUPERUSER
from agentobs.embedded.folders import prepare
from agentobs.embedded.layout import PORT, Layout, layout_of
from agentobs.embedded.startup import ensure_kept, ensure_running
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that takes connections; `started` tells whether this call started it."""

    data_directory: Path
    socket_directory: Path
    port: int
    user: str
    database: str
    log_file: Path
    started: bool

    @property
    def url(self) -> str:
        """Return the URL for libpq, psql and asyncpg."""
        return _url(self.socket_directory)

    def binary(self, name: str) -> Path:
        """Return the path of a PostgreSQL program of the server's version, such as pg_dump."""
        path = find_binaries() / name
        if not path.exists():
            raise EmbeddedServerError(f"the embedded PostgreSQL has no program {name!r} ({path})")
        return path


@dataclass(frozen=True)
class ServerStatus:
    """What there is; `pid` is None where the server does not run, `version` is the programs'."""

    running: bool
    persistent: bool
    pid: int | None
    version: str
    data_directory: Path
    socket_directory: Path
    url: str
    log_file: Path


@contextmanager
def running_server(
    data_directory: Path | None = None, *, options: Mapping[str, str] | None = None
) -> Iterator[EmbeddedServer]:
    """Find or start the server for the block; it stops when its last user is gone.

    `options` are server settings (`{"fsync": "off"}`); they count where this call starts it.
    The server stops in the background: call `stop_server` before removing its folder.
    """
    with ExitStack() as held:
        with _explained():
            find_binaries()
            layout = prepare(data_directory)
            users = held.enter_context(locks.opened(layout.users_lock, layout.account))
            with locks.exclusive(layout.start_lock, layout.account):
                locks.wait_shared(users)
                started = ensure_running(layout, options or {}, persistent=False)
        try:
            yield _describe(layout, started=started)
        finally:
            ensure_kept(layout)


def start_server(data_directory: Path | None = None) -> EmbeddedServer:
    """Find or start the server, and keep it running until `stop_server`, or until it crashes."""
    with _explained():
        find_binaries()
        layout = prepare(data_directory)
        with locks.exclusive(layout.start_lock, layout.account):
            started = ensure_running(layout, {}, persistent=True)
    return _describe(layout, started=started)


def stop_server(data_directory: Path | None = None) -> bool:
    """Stop the server, even under its users; tell whether one was running."""
    with _explained():
        layout = layout_of(data_directory)
        if not layout.start_lock.exists():
            return False
        with locks.exclusive(layout.start_lock, layout.account):
            layout.persistent_marker.unlink(missing_ok=True)
            return postmaster.stop(layout)


def server_status(data_directory: Path | None = None) -> ServerStatus:
    """Look at the server; nothing is made, started or stopped."""
    with _explained():
        layout = layout_of(data_directory)
        is_running = postmaster.is_ready(layout)
        return ServerStatus(
            running=is_running,
            persistent=is_running and layout.persistent_marker.exists(),
            pid=postmaster.verified_pid(layout) if is_running else None,
            version=server_version(find_binaries()),
            data_directory=layout.data_directory,
            socket_directory=layout.socket_directory,
            url=_url(layout.socket_directory),
            log_file=layout.log_file,
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the operating system refuses into an error that names the way out."""
    try:
        yield
    except (OSError, SubprocessError) as error:
        raise EmbeddedServerError(
            f"the embedded PostgreSQL can't use its data folder: {error}. Set AGENTOBS_DATA_DIR "
            "to a folder of yours, or AGENTOBS_DATABASE_URL to a server of yours"
        ) from error


def _describe(layout: Layout, *, started: bool) -> EmbeddedServer:
    return EmbeddedServer(
        data_directory=layout.data_directory,
        socket_directory=layout.socket_directory,
        port=PORT,
        user=SUPERUSER,
        database=DATABASE,
        log_file=layout.log_file,
        started=started,
    )


def _url(socket_directory: Path) -> str:
    host = quote(os.fsencode(socket_directory), safe="/")
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={host}&port={PORT}"
