"""Who may connect: the server's account and root, as the kernel tells them by the socket.

The folder of the socket lets nobody else in; this holds where somebody has opened that folder. No
password is there to be guessed, kept or told.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from agentobs.errors import EmbeddedServerError

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.embedded.layout import Layout

_RULES = """\
local all all peer map=agentobs
local replication all peer map=agentobs
"""
_ROOT = 0


def write_access_rules(layout: Layout) -> None:
    """Write what the server reads when it starts: the rules, and the users that they mean.

    At each start, for another machine or image may know the account by another name.
    """
    names = sorted({_name_of(layout.account.uid), _name_of(_ROOT)})
    _write(layout, layout.access_rules, _RULES)
    _write(layout, layout.known_users, "".join(f'agentobs "{name}" all\n' for name in names))


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name.replace('"', '""')
    except KeyError:
        raise EmbeddedServerError(
            f"uid {uid} has no name in the system's list of users, by which PostgreSQL tells who "
            "connects: add it there, or set AGENTOBS_DATABASE_URL to a server of yours"
        ) from None


def _write(layout: Layout, path: Path, text: str) -> None:
    # root writes into a folder of a lesser user: a symbolic link there leads nowhere.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        layout.account.own(file.fileno())
        file.write(text)
