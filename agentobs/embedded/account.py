"""Which system user runs the server: the caller, or for root another one that exists already."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentobs.errors import EmbeddedServerError

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# postgres is made for this where a PostgreSQL is installed. nobody is on every system; initdb
# refuses a uid without an entry in the user list, so a number of our own would not do.
_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """The uid and gid of the server; `is_dropped` where the caller is root and gives up rights."""

    uid: int
    gid: int
    is_dropped: bool

    @property
    def process_options(self) -> dict[str, Any]:
        """Return what `subprocess` takes to run as this account."""
        if not self.is_dropped:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, file: Path | int) -> None:
        """Give a file or folder that root has just made to the account."""
        if not self.is_dropped:
            return
        if isinstance(file, int):
            os.fchown(file, self.uid, self.gid)
        else:
            # The account may own the parent, and have put a link there meanwhile.
            os.lchown(file, self.uid, self.gid)

    def can(self, *tests: tuple[str, Path]) -> bool:
        """Tell whether `test` (-x, -r) holds for the account: the kernel knows more than modes."""
        if not self.is_dropped:
            return True
        expression = " && ".join(
            f'test {flag} "${number}"' for number, (flag, _) in _counted(tests)
        )
        command = ["/bin/sh", "-c", expression, "sh", *(str(path) for _, path in tests)]
        return subprocess.run(command, check=False, cwd="/", **self.process_options).returncode == 0


def _counted(tests: Iterable[tuple[str, Path]]) -> Iterable[tuple[int, tuple[str, Path]]]:
    return enumerate(tests, start=1)


def server_account(*folders: Path) -> Account:
    """Return who runs the server whose data is, or will be, in the first of `folders` there is.

    For root it is the folder's owner, so that `sudo` serves a user's own data as that user.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_dropped=False)
    for folder in folders:
        if folder.exists() and (owner := folder.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, is_dropped=True)
    return _unprivileged_account()


def _unprivileged_account() -> Account:
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_dropped=True)
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor a user "
        "nobody: run as another user, or set AGENTOBS_DATABASE_URL to a server of yours"
    )
