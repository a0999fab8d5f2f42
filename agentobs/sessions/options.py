"""The options of libpq as arguments of asyncpg; what the driver can't do is refused by name."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, get_args

from agentobs.errors import ConfigurationError
from agentobs.sessions.tls import TLS_OPTIONS, tls_arguments
from agentobs.settings import SslMode, TargetSession

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

logger = logging.getLogger("agentobs.sessions")

SERVER_SETTINGS = ("application_name", "options")
FALLBACK_NAME = "fallback_application_name"
_ARGUMENTS = (
    "target_session_attrs",
    "passfile",
    "service",
    "servicefile",
    "krbsrvname",
    "gsslib",
)
# Values that ask for what the driver does anyway.
_NEEDLESS = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "UTF8", "utf-8", "UTF-8"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "requiressl": ("0",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
# Settings of the socket: a connection is as right without them.
_IGNORED = (
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_NAME = re.compile(r"[a-z_]+")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")
_CHOICES = {
    "sslmode": get_args(SslMode),
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": get_args(TargetSession),
}
_NO_CHANNEL_BINDING = (
    "the driver has no channel binding: leave it out, and say instead whose certificate the server "
    "must have (sslmode=verify-full&sslrootcert=system)"
)


def driver_arguments(options: Mapping[str, str], setting: str) -> dict[str, Any]:
    """Return the arguments for `asyncpg.connect`; raise ConfigurationError for a wrong option."""
    _require_known(options, setting)
    arguments: dict[str, Any] = {name: options[name] for name in _ARGUMENTS if name in options}
    if "connect_timeout" in options:
        arguments["timeout"] = _seconds(options["connect_timeout"], setting)
    arguments |= tls_arguments(options, setting)
    if "service" in options:
        # Without a URL the driver does not look at the service.
        arguments.setdefault("dsn", "postgresql://?")
    return arguments


def _require_known(options: Mapping[str, str], setting: str) -> None:
    known = {*SERVER_SETTINGS, FALLBACK_NAME, *TLS_OPTIONS, *_ARGUMENTS, "connect_timeout"}
    for name, value in options.items():
        if name in _IGNORED:
            logger.warning("%s: the driver can't set %s, which is ignored", setting, name)
        elif (name, value) == ("channel_binding", "require"):
            raise ConfigurationError(f"{setting}: {_NO_CHANNEL_BINDING}", setting=setting)
        elif name in _NEEDLESS:
            _require_one_of(name, value, _NEEDLESS[name], setting)
        elif name not in known:
            # Any other text may be the rest of a password that was not encoded.
            shown = f"the option {name}" if _NAME.fullmatch(name) else "an option"
            raise ConfigurationError(
                f"{setting} has {shown}, which the driver does not have: the options are "
                f"{', '.join(sorted(known))}",
                setting=setting,
            )
    for name in _CHOICES.keys() & options.keys():
        _require_one_of(name, options[name], _CHOICES[name], setting)


def _require_one_of(name: str, value: str, choices: Collection[str], setting: str) -> None:
    if value not in choices:
        raise ConfigurationError(
            f"{setting} has another value of {name} than the driver knows: "
            f"it takes {', '.join(choices)}",
            setting=setting,
        )


def _seconds(text: str, setting: str) -> float | None:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ConfigurationError(
            f"{setting} has a connect_timeout that is no number of seconds", setting=setting
        )
    # Zero and less is libpq's word for no limit.
    return float(text) if float(text) > 0 else None
