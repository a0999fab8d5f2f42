"""Making the folders, with the one owner and mode that each may have."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from agentobs.embedded.layout import ROOT_DATA_DIRECTORY, Layout, layout_of
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.embedded.account import Account


def prepare(data_directory: Path | None) -> Layout:
    """Make the data folder where it is missing, and check that the server can reach it."""
    layout = layout_of(data_directory)
    if layout.cluster.exists():
        return layout
    _make_data_directory(layout)
    # Another process may have given it to an account in between.
    return layout_of(layout.data_directory)


def _make_data_directory(layout: Layout) -> None:
    folder, account = layout.data_directory, layout.account
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    _require_reachable(account, missing[-1].parent if missing else folder.parent)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        if account.is_dropped:
            path.chmod(0o755)
    if missing or (account.is_dropped and folder.stat().st_uid == 0 and not any(folder.iterdir())):
        folder.chmod(0o700)
        account.own(folder)
    _require_reachable(account, folder)


def _require_reachable(account: Account, folder: Path) -> None:
    if not account.can(("-x", folder)):
        raise EmbeddedServerError(
            f"PostgreSQL refuses to run as root, and uid {account.uid}, which runs it instead, "
            f"can't enter {folder}: set AGENTOBS_DATA_DIR to a folder that everyone can enter, "
            f"such as {ROOT_DATA_DIRECTORY}"
        )


def make_socket_directory(layout: Layout) -> None:
    """Make the socket folder, or check that the one there is belongs to the server alone."""
    folder = layout.socket_directory
    try:
        folder.mkdir(mode=0o700)
        layout.account.own(folder)
    except FileExistsError:
        found = folder.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == layout.account.uid
        if not is_ours or found.st_mode & 0o077:
            raise EmbeddedServerError(
                f"{folder} is not a folder that only uid {layout.account.uid} can enter: "
                "remove it, or set AGENTOBS_DATA_DIR to a shorter path"
            ) from None


def remove_socket_directory(layout: Layout) -> None:
    """Remove the socket folder where it is empty: it may be in /tmp, which nobody tidies for us."""
    with suppress(OSError):
        layout.socket_directory.rmdir()


def mark_persistent(layout: Layout) -> None:
    """Tell keepers that the server is to stay."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    marker = os.open(layout.persistent_marker, flags, 0o600)
    layout.account.own(marker)
    os.close(marker)
