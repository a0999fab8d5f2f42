"""A PostgreSQL that needs no set-up: the binaries of the extra [embedded], run while it is used.

::

    server       what callers see: find or start, keep, stop, look at
    default      the settings of whoever names no database
    startup      from whatever is there to a server that takes connections
    keeper       the process that stops the server when its last user is gone, however it died
    postmaster   the server process: start it, know that it is ours, ask it to stop
    access       who may connect
    cluster      a new data folder, made whole or not at all
    binaries     where the PostgreSQL programs are, or a copy that the server's account can run
    folders      the folders, made with the one owner and mode that each may have
    layout       which files and folders there are
    account      which system user runs the server (PostgreSQL refuses root)
    detached     processes that outlive their starter
    locks        flock: the kernel frees it when its holder dies, kill -9 included

Four lock files carry the whole agreement between processes:

- `start.lock`, exclusive: one process at a time starts or stops.
- `users.lock`, shared by every user: who gets it exclusively knows that nobody is left.
- `keeper.lock`, exclusive, held by the keeper for its life.
- `server.lock`, exclusive, inherited by every process of the server: free means that none is alive.
"""

from __future__ import annotations

from agentobs.embedded.binaries import is_installed
from agentobs.embedded.layout import default_data_directory
from agentobs.embedded.server import (
    EmbeddedServer,
    ServerStatus,
    running_server,
    server_status,
    start_server,
    stop_server,
)

__all__ = [
    "EmbeddedServer",
    "ServerStatus",
    "default_data_directory",
    "is_installed",
    "running_server",
    "server_status",
    "start_server",
    "stop_server",
]
