"""Read a libpq URL into its parts; connect to nothing, and quote no secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BRACKETED = re.compile(r"\[(?P<name>[0-9A-Za-z:.%]+)\](?::(?P<port>.*))?")
_IPV6 = re.compile(r"(?=.*:.*:)[0-9A-Fa-f:.]+(?:%[0-9A-Za-z.:_-]+)?")
_PORT = re.compile(r"[0-9]{1,9}")
_DEFAULT_PORT = "5432"
_LAST_PORT = 65535
# Other names of libpq's options: SQLAlchemy's and asyncpg's.
_SYNONYMS = {"ssl": "sslmode", "database": "dbname"}
_PLACE_OPTIONS = ("host", "port", "user", "password", "dbname")


@dataclass(frozen=True)
class Place:
    """A database by name; `ports` are as many as `hosts`, or none; `options` are libpq's."""

    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def describe(self) -> str:
        """Return the place for messages: a URL without password and options."""
        user = f"{self.user}@" if self.user else ""
        return f"postgresql://{user}{','.join(self._shown_hosts())}/{self.database or ''}"

    def _shown_hosts(self) -> Iterator[str]:
        for number, host in enumerate(self.hosts):
            bracketed = f"[{host}]" if ":" in host else host
            yield f"{bracketed}:{self.ports[number]}" if self.ports else bracketed


def parse_url(text: str, setting: str) -> Place:
    """Parse a URL; raise ConfigurationError that names `setting` for what is none."""
    login, netloc, database, query = _split_url(text.strip(), setting)
    options = _split_query(query, setting)
    named = {name: options.pop(name, None) for name in _PLACE_OPTIONS}
    user, _, password = login.partition(":")
    if netloc:
        _only(netloc, named["host"], "host", setting)
        split = [_split_encoded_host(each, setting) for each in netloc.split(",")]
    else:
        split = _split_hosts(named["host"] or "", setting)
    hosts, ports = _with_ports(split, named["port"] or "", setting)
    return Place(
        hosts,
        ports,
        _only(unquote(user), named["user"], "user", setting),
        _only(unquote(password), named["password"], "password", setting),
        _only(unquote(database), named["dbname"], "database", setting),
        options,
    )


def parse_hosts(hosts: str, ports: str, setting: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Split a list of hosts, each with or without a port, and a list of ports for the others.

    One port counts for all hosts. A host is a name, an address or the folder of a socket.
    """
    return _with_ports(_split_hosts(hosts, setting), ports, setting)


def _with_ports(
    split: list[tuple[str, str]], ports: str, setting: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = tuple(name for name, _ in split if name)
    own = [port for _, port in split]
    given = ports.split(",") if ports else []
    if any(own) and given:
        raise ConfigurationError(f"{setting} gives a port twice: keep one", setting=setting)
    if len(names) < len(split) and len(split) > 1:
        raise _no_url(setting)
    return names, _ports(own if any(own) else given, max(len(split), 1), setting)


def _ports(texts: list[str], count: int, setting: str) -> tuple[int, ...]:
    """Return the ports of `count` hosts; none, where none is given: the driver looks at PGPORT."""
    if len(texts) not in {0, 1, count}:
        raise ConfigurationError(
            f"{setting} names {count} hosts and {len(texts)} ports: one for all, or one each",
            setting=setting,
        )
    if len(texts) == 1:
        texts = texts * count
    return tuple(_port(text or _DEFAULT_PORT, setting) for text in texts)


def _split_url(text: str, setting: str) -> tuple[str, str, str, str]:
    scheme, separator, rest = text.partition("://")
    before, _, query = rest.partition("?")
    login, _, place = before.rpartition("@")
    # What stands before the last @ is the login. Another mark in it belongs to a password that is
    # not encoded, and the parts would be cut wrongly: what came to stand elsewhere would be shown.
    is_cut_wrongly = any(mark in login for mark in "/@") or "#" in before
    is_cut_wrongly |= "@" in query and "@" not in before
    # PostgreSQL ends a text at a NUL, so what follows would be read as something else.
    has_nul = "\x00" in rest or "%00" in rest
    if not separator or not _SCHEME.fullmatch(scheme) or is_cut_wrongly or has_nul:
        raise _no_url(setting)
    if scheme.lower() not in _SCHEMES:
        raise ConfigurationError(
            f"{setting} begins with {scheme}: only postgresql:// is spoken here "
            "(the driver is asyncpg)",
            setting=setting,
        )
    netloc, _, database = place.partition("/")
    return login, netloc, database, query


def _split_query(query: str, setting: str) -> dict[str, str]:
    # Not parse_qsl: it takes + for a space, which libpq leaves alone.
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = (unquote(part) for part in pair.partition("="))
        # JDBC's way to ask for TLS, which libpq takes, too.
        if (name, value) == ("ssl", "true"):
            value = "require"
        name = _SYNONYMS.get(name, name)
        if name in {"host", "port"} and name in options:
            # SQLAlchemy repeats the option for each of several hosts.
            value = f"{options[name]},{value}"
        elif name in options:
            raise ConfigurationError(
                f"{setting} gives more than one {name}: keep one", setting=setting
            )
        options[name] = value
    # As for libpq, an empty value is none.
    return {name: value for name, value in options.items() if value}


def _split_hosts(hosts: str, setting: str) -> list[tuple[str, str]]:
    return [_split_host(host, setting) for host in hosts.split(",")] if hosts else []


def _split_host(host: str, setting: str) -> tuple[str, str]:
    if host.startswith("/"):
        return host, ""
    if host.startswith("["):
        return _split_bracketed(host, setting)
    if _IPV6.fullmatch(host):
        # It needs brackets only in front of a query.
        return host, ""
    name, _, port = host.partition(":")
    if not name:
        raise _no_url(setting)
    return name, port


def _split_encoded_host(text: str, setting: str) -> tuple[str, str]:
    if text.startswith("["):
        return _split_bracketed(unquote(text), setting)
    name, _, port = text.partition(":")
    return unquote(name), unquote(port)


def _split_bracketed(host: str, setting: str) -> tuple[str, str]:
    found = _BRACKETED.fullmatch(host)
    if found is None:
        raise _no_url(setting)
    return found["name"], found["port"] or ""


def _port(text: str, setting: str) -> int:
    if not _PORT.fullmatch(text):
        raise _no_url(setting)
    port = int(text)
    if not 0 < port <= _LAST_PORT:
        raise ConfigurationError(
            f"{setting} names the port {port}: ports are 1 to {_LAST_PORT}", setting=setting
        )
    return port


def _only(before: str, in_query: str | None, what: str, setting: str) -> str | None:
    if before and in_query:
        raise ConfigurationError(f"{setting} gives a {what} twice: keep one", setting=setting)
    return before or in_query or None


def _no_url(setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting} is no URL: write postgresql://user:password@host:5432/database, "
        "with special characters of the password percent-encoded",
        setting=setting,
    )
