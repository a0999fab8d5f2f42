"""What tests of TLS need: certificates, good ones and bad ones, and a PostgreSQL that knows TLS."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trustme

from agentobs.embedded.binaries import find_binaries

if TYPE_CHECKING:
    from agentobs.embedded.account import Account

CERTIFIED_USER = "certified"

_SETTINGS = """
ssl = on
ssl_ca_file = 'root.crt'
"""

_HBA = f"""\
local all all trust
local replication all trust
hostssl all {CERTIFIED_USER} all cert
hostssl all all all scram-sha-256
hostnossl all all all reject
"""

_SERVER_NAMES = ("127.0.0.1", "localhost")
_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Pair(NamedTuple):
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """Paths; `ca` signs all pairs, `stranger_ca` none; `client` is for CERTIFIED_USER."""

    ca: Path
    stranger_ca: Path
    server: Pair
    wrong_host: Pair
    expired: Pair
    client: Pair


def make_certificates(folder: Path) -> Certificates:
    """Write the files into a folder that is there; the caller owns them."""
    ca = trustme.CA()
    client = ca.issue_cert(CERTIFIED_USER, common_name=CERTIFIED_USER)
    return Certificates(
        ca=_write_ca(folder / "ca.crt", ca),
        stranger_ca=_write_ca(folder / "stranger_ca.crt", trustme.CA()),
        server=_write(folder, "server", ca.issue_cert(*_SERVER_NAMES)),
        wrong_host=_write(folder, "wrong_host", ca.issue_cert("other.example")),
        expired=_write(folder, "expired", ca.issue_cert(*_SERVER_NAMES, not_after=_LONG_AGO)),
        client=_write(folder, "client", client),
    )


def _write_ca(path: Path, ca: trustme.CA) -> Path:
    ca.cert_pem.write_to_path(path)
    return path


def _write(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    (certificate,) = leaf.cert_chain_pems
    certificate.write_to_path(pair.certificate)
    pair.key.touch(mode=0o600)
    leaf.private_key_pem.write_to_path(pair.key)
    return pair


def install_tls(certificates: Certificates, data: Path, account: Account) -> None:
    """Set up the data folder of a server that does not run yet."""
    _install(certificates.ca, data / "root.crt", account)
    install_pair(certificates.server, data, account)
    (data / "pg_hba.conf").write_text(_HBA)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS)


def install_pair(pair: Pair, data: Path, account: Account) -> None:
    """Put the certificate where the server looks for it when it starts or reloads."""
    _install(pair.certificate, data / "server.crt", account)
    _install(pair.key, data / "server.key", account)


def _install(source: Path, target: Path, account: Account) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o600)
    account.own(target)


def tls_programs() -> Path:
    """Return the folder of the programs of a PostgreSQL that is built with TLS."""
    assert _PROGRAMS is not None, "mark the test with needs_tls"
    return _PROGRAMS


def _find_programs() -> Path | None:
    # The embedded one is built without TLS so far.
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(installed, key=lambda each: int(each.parent.name), reverse=True)
    on_path = [Path(found).parent for found in [shutil.which("postgres")] if found]
    return next(filter(_has_tls, [find_binaries(), *newest_first, *on_path]), None)


def _has_tls(programs: Path) -> bool:
    if not (programs / "postgres").exists():
        return False
    command = [str(programs / "pg_config"), "--configure"]
    return "openssl" in subprocess.run(command, capture_output=True, check=True, text=True).stdout


_PROGRAMS = _find_programs()

needs_tls = pytest.mark.skipif(
    _PROGRAMS is None,
    reason="there is no PostgreSQL with TLS on this machine (CI installs it)",
)
