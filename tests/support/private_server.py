"""PostgreSQL servers of a test's own, on TCP: with passwords, TLS, restarts and standbys."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlencode

from support.certificates import CERTIFIED_USER, install_pair, install_tls, tls_programs
from support.embedded import PATIENCE_SECONDS, processes_of, wait_until

from agentobs.embedded.account import server_account
from agentobs.embedded.binaries import binaries_for_server
from agentobs.embedded.detached import server_environment
from agentobs.embedded.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.certificates import Certificates, Pair

    from agentobs.embedded.account import Account

# Below the ports of outgoing connections, which would take the port of a stopped server, and
# where a client that tries again and again would one day connect to itself.
_PORTS = range(20_000, 32_000)

PROGRAMS_SETTING = "AGENTOBS_TEST_POSTGRES_PROGRAMS"

# Where the matrix runs the tests, the server programs of its version; they are built with TLS.
_MATRIX_PROGRAMS = os.environ.get(PROGRAMS_SETTING)

_INITDB_OPTIONS = (
    "--encoding=UTF8",
    "--locale=C",
    "--auth-local=trust",
    "--auth-host=scram-sha-256",
    "--no-instructions",
    "--no-sync",
)


@dataclass
class PrivateServer:
    """A server as a child of this process; `sql` is its superuser's, by the socket."""

    folder: Path
    account: Account
    programs: Path
    clients: Path
    port: int
    password: str
    options: Mapping[str, str]
    host: ClassVar[str] = "127.0.0.1"
    user: ClassVar[str] = "postgres"
    database: ClassVar[str] = "postgres"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def socket_directory(self) -> Path:
        return self.folder / "socket"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The pid of the postmaster, for tests that kill it; call `stop` before `start` then."""
        assert self._process is not None
        return self._process.pid

    def url(
        self, *, host: str = host, user: str = user, with_password: bool = True, **query: object
    ) -> str:
        """Return how to reach it over TCP; the password is the superuser's."""
        password = f":{quote(self.password)}" if with_password else ""
        options = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return f"postgresql://{user}{password}@{host}:{self.port}/{self.database}{options}"

    def start(self) -> None:
        """Start it and wait until it takes connections, as a standby takes them too."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, *self._settings()],
                cwd="/",
                env=server_environment(),
                # Ctrl-C in the terminal is for its users, which stop it when they are done.
                start_new_session=True,
                stderr=log,
                stdin=subprocess.DEVNULL,
                stdout=log,
                umask=0o077,
                **self.account.process_options,
            )
        wait_until(self._is_ready)

    def stop(self) -> None:
        """Stop it and end its clients' connections."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def sql(self, statement: str) -> str:
        """Return the rows as psql prints them, without headings."""
        options = ["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.database, "-c", statement]
        return self._run(self.clients / "psql", *options, *self._address())

    def prepend_hba(self, line: str) -> None:
        """Put a line before the others, as the first one that matches counts, and load it."""
        hba = self.data / "pg_hba.conf"
        hba.write_text(f"{line}\n{hba.read_text()}")
        self.reload()

    def use_certificate(self, pair: Pair) -> None:
        """Show another certificate to the clients that connect from now on."""
        install_pair(pair, self.data, self.account)
        self.reload()

    def reload(self) -> None:
        """Load the files again; a process that the server starts after it has the new state."""
        before = self.sql("SELECT pg_conf_load_time()")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.sql("SELECT pg_conf_load_time()") != before)

    @contextmanager
    def standby(self) -> Iterator[PrivateServer]:
        """Run a hot standby of this server, with its users, passwords and certificates."""
        with _folder_of(self.account) as folder:
            copy = replace(self, folder=folder, port=_free_port())
            options = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
            program = self.clients / "pg_basebackup"
            self._run(program, *self._address(), f"--pgdata={copy.data}", *options)
            with _running(copy):
                yield copy

    def _address(self) -> list[str]:
        return ["-h", str(self.socket_directory), "-p", str(self.port), "-U", self.user]

    def _settings(self) -> list[str]:
        settings = {
            "fsync": "off",
            "wal_retrieve_retry_interval": "100ms",
            **self.options,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        command = [str(self.clients / "pg_isready"), "-q", *self._address()]
        return subprocess.run(command, check=False, env=server_environment()).returncode == 0

    def _initialize(self) -> None:
        passwords = self.folder / "password"
        passwords.write_text(self.password)
        self.account.own(passwords)
        names = [f"--pgdata={self.data}", f"--pwfile={passwords}", f"--username={self.user}"]
        self._run(self.programs / "initdb", *names, *_INITDB_OPTIONS)

    def _run(self, program: Path, *arguments: str) -> str:
        result = subprocess.run(
            [program, *arguments],
            capture_output=True,
            check=False,
            cwd="/",
            env=server_environment(),
            text=True,
            umask=0o077,
            **self.account.process_options,
        )
        assert result.returncode == 0, result.stderr
        output: str = result.stdout
        return output.strip()

    def _end(self, *signals: signal.Signals) -> None:
        if self._process is None:
            return
        for each in signals:
            self._process.send_signal(each)
        self._process.wait(PATIENCE_SECONDS)
        # Where the test killed it, its processes are still on their way out.
        wait_until(lambda: not processes_of(self.folder))


@contextmanager
def private_server(
    *,
    tls: Certificates | None = None,
    programs: Path | None = None,
    options: Mapping[str, str] = {},
) -> Iterator[PrivateServer]:
    """Run a server with a password; with `tls` it refuses plaintext and admits CERTIFIED_USER.

    `programs` are of the version that is wanted; clients of the newest talk with all of them.
    """
    account = server_account()
    with _folder_of(account) as folder:
        clients = binaries_for_server(Layout(folder, account))
        chosen = programs or _usual_programs(clients, tls=tls is not None)
        password = secrets.token_urlsafe(16)
        server = PrivateServer(folder, account, chosen, clients, _free_port(), password, options)
        server._initialize()
        if tls:
            install_tls(tls, server.data, account)
        with _running(server):
            if tls:
                server.sql(f"CREATE ROLE {CERTIFIED_USER} LOGIN")
            yield server


def _usual_programs(embedded: Path, *, tls: bool) -> Path:
    if _MATRIX_PROGRAMS:
        return Path(_MATRIX_PROGRAMS)
    return tls_programs() if tls else embedded


@contextmanager
def _folder_of(account: Account) -> Iterator[Path]:
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="agentobs-private-")))
    try:
        for each in (folder, folder / "socket"):
            each.mkdir(mode=0o700, exist_ok=True)
            account.own(each)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(server: PrivateServer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        # A test may have suspended it.
        server._end(signal.SIGQUIT, signal.SIGCONT)


def _free_port() -> int:
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
