"""The TLS options of libpq as arguments of asyncpg; their files are looked at beforehand."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

TLS_OPTIONS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_CERTIFICATES = ("sslcert", "sslcrl", "sslrootcert")
# The certificates that the system trusts, as libpq 16 has it; the driver does not know the word.
_SYSTEM = "system"


def tls_arguments(options: Mapping[str, str], setting: str) -> dict[str, Any]:
    """Return the arguments for `asyncpg.connect`; raise ConfigurationError for a wrong file."""
    tls = {name: options[name] for name in TLS_OPTIONS if name in options}
    for name in (*_CERTIFICATES, "sslkey"):
        if tls.get(name, _SYSTEM) != _SYSTEM:
            _require_file(Path(tls[name]), name, setting)
    if tls.get("sslrootcert") == _SYSTEM:
        direct = {"direct_tls": True} if tls.get("sslnegotiation") == "direct" else {}
        return {"ssl": _system_context(tls, setting), **direct}
    _require_root(tls, setting)
    # The driver takes these only as parts of a URL.
    return {"dsn": f"postgresql://?{urlencode(tls)}"} if tls else {}


def _require_file(path: Path, name: str, setting: str) -> None:
    # Asked here, where it is still known which option the file belongs to.
    try:
        path.open("rb").close()
        if name in _CERTIFICATES:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{setting}: the file of {name} holds no certificate in PEM: {path}", setting=setting
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: the file of {name} can't be read: {error.strerror}: {path}",
            setting=setting,
        ) from error


def _require_root(tls: Mapping[str, str], setting: str) -> None:
    verifies = tls.get("sslmode", "").startswith("verify-")
    usual = Path.home() / ".postgresql" / "root.crt"
    given = tls.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if verifies and not given and not usual.exists():
        raise ConfigurationError(
            f"{setting}: sslmode={tls['sslmode']} needs the CA: give its file as sslrootcert, or "
            "`system` for those that the system trusts",
            setting=setting,
        )


def _system_context(tls: Mapping[str, str], setting: str) -> ssl.SSLContext:
    """Make the context that the driver makes of its URL, with the system's certificates."""
    if tls.get("sslmode", "verify-full") != "verify-full":
        raise ConfigurationError(
            f"{setting}: sslrootcert=system wants sslmode=verify-full, for anyone can get a "
            "certificate that the system trusts",
            setting=setting,
        )
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    _limit_versions(context, tls)
    if "sslcrl" in tls:
        context.load_verify_locations(cafile=tls["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if "sslcert" in tls:
        # Without any password OpenSSL would ask on the terminal.
        password = tls.get("sslpassword", "")
        context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), password)
    return context


def _limit_versions(context: ssl.SSLContext, tls: Mapping[str, str]) -> None:
    if lowest := tls.get("ssl_min_protocol_version"):
        context.minimum_version = ssl.TLSVersion[lowest.replace(".", "_")]
    if highest := tls.get("ssl_max_protocol_version"):
        context.maximum_version = ssl.TLSVersion[highest.replace(".", "_")]
