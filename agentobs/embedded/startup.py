"""From whatever is there, a crashed or a stopping server included, to one that is ready."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agentobs.embedded import locks, postmaster
from agentobs.embedded.binaries import binaries_for_server
from agentobs.embedded.cluster import ensure_cluster
from agentobs.embedded.folders import mark_persistent
from agentobs.embedded.keeper import KeeperError, kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs.embedded.layout import Layout


def ensure_running(layout: Layout, options: Mapping[str, str], *, persistent: bool) -> bool:
    """Return once the server takes connections; tell whether it had to be started.

    The caller holds start.lock, and users.lock unless the server is to be persistent.
    """
    deadline = time.monotonic() + postmaster.PATIENCE_SECONDS
    started = False
    while not postmaster.is_ready(layout):
        try:
            started |= _start_if_dead(layout, options, persistent=persistent, again=started)
        except KeeperError:
            postmaster.stop(layout)
            raise
        if time.monotonic() > deadline:
            raise postmaster.failure(layout, "PostgreSQL did not take connections in time")
        time.sleep(postmaster.POLL_SECONDS)
    if persistent:
        mark_persistent(layout)
    ensure_kept(layout)
    return started


def ensure_kept(layout: Layout) -> None:
    """Give a living server that is not to stay its keeper again, where that one has died."""
    if not locks.is_free(layout.server_lock) and not layout.persistent_marker.exists():
        with kept(layout):
            pass


def _start_if_dead(
    layout: Layout, options: Mapping[str, str], *, persistent: bool, again: bool
) -> bool:
    with locks.opened(layout.server_lock, layout.account) as lock:
        if not locks.try_exclusive(lock):
            return False
        if again:
            raise postmaster.failure(layout, "PostgreSQL did not start")
        if persistent:
            mark_persistent(layout)
            _start(layout, options, lock)
        else:
            # To stay was asked of the server that is dead, not of this one.
            layout.persistent_marker.unlink(missing_ok=True)
            with kept(layout):
                _start(layout, options, lock)
        return True


def _start(layout: Layout, options: Mapping[str, str], server_lock: int) -> None:
    programs = binaries_for_server(layout)
    ensure_cluster(layout, programs, server_lock=server_lock)
    postmaster.launch(layout, programs, options, server_lock)
