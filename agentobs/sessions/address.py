"""Where a database is: a URL or its parts from the settings, ready for the driver."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from sqlalchemy import URL

from agentobs.errors import ConfigurationError, ConnectionFailedError
from agentobs.sessions.options import FALLBACK_NAME, SERVER_SETTINGS, driver_arguments
from agentobs.sessions.urls import Place, parse_hosts, parse_url
from agentobs.settings import PLACE_PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs.settings import DatabaseSettings, PasswordSource

_DRIVER = "postgresql+asyncpg"
_OPTION_PARTS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs")
# A transaction pooler refuses a connection that asks for a setting which it does not track.
_REFUSED_BY_POOLERS = "options"


@dataclass(frozen=True)
class Address:
    """A database, and how to get there.

    `place` and `url` are for messages and hold no password. `arguments` are for
    `asyncpg.connect`; `server_settings` are those that the URL asks for.
    """

    setting: str
    place: str
    url: URL
    arguments: Mapping[str, Any] = field(repr=False)
    server_settings: Mapping[str, str] = field(repr=False)


def database_address(settings: DatabaseSettings) -> Address:
    """Return the address of services; raise ConfigurationError, quoting no secret."""
    setting = "AGENTOBS_DATABASE_URL"
    if settings.database_url is None:
        return _address(_place_of_parts(settings), settings, "AGENTOBS_HOST")
    for part in PLACE_PARTS:
        if getattr(settings, part) is not None:
            raise ConfigurationError(
                f"{setting} and AGENTOBS_{part.upper()} both say where the database is: keep one",
                setting=setting,
            )
    return _address(parse_url(settings.database_url.get_secret_value(), setting), settings, setting)


def migration_address(settings: DatabaseSettings) -> Address:
    """Return the address of migrations: the direct one, where there is one."""
    if settings.migration_url is None:
        return database_address(settings)
    direct = settings.model_copy(update={"pooler": None})
    return _other_address(settings.migration_url, direct, "AGENTOBS_MIGRATION_URL")


def reading_address(settings: DatabaseSettings) -> Address:
    """Return the address of read sessions: the replica's, where there is one."""
    if settings.read_url is None:
        found = database_address(settings)
    else:
        found = _other_address(settings.read_url, settings, "AGENTOBS_READ_URL")
    if found.arguments.get("target_session_attrs") != "read-write":
        return found
    # The driver takes a session that was told to be read-only for a server that is.
    return replace(found, arguments={**found.arguments, "target_session_attrs": "primary"})


def _other_address(url: SecretStr, settings: DatabaseSettings, setting: str) -> Address:
    """Return the address of a URL of its own, which may log in otherwise than the services'."""
    place = parse_url(url.get_secret_value(), setting)
    unset: dict[str, None] = {"target_session_attrs": None}
    if place.password is not None:
        unset["password"] = None
    return _address(place, settings.model_copy(update=unset), setting)


def _place_of_parts(settings: DatabaseSettings) -> Place:
    if settings.host is None:
        raise ConfigurationError(
            "AGENTOBS_DATABASE_URL is not set: give it a URL such as "
            "postgresql://user:password@host:5432/database, or name the parts in AGENTOBS_HOST "
            "and its companions. For a try-out, run `agentobs server start` and set it to what "
            "`agentobs server url` prints",
            setting="AGENTOBS_DATABASE_URL",
        )
    port = "" if settings.port is None else str(settings.port)
    hosts, ports = parse_hosts(settings.host, port, "AGENTOBS_HOST")
    return Place(hosts, ports, user=settings.user, database=settings.database)


def _address(place: Place, settings: DatabaseSettings, setting: str) -> Address:
    options = _all_options(place, settings)
    if settings.pooler is not None and _REFUSED_BY_POOLERS in options:
        raise ConfigurationError(
            f"{setting} has {_REFUSED_BY_POOLERS}, which a transaction pooler does not pass on: "
            "set them for the role (ALTER ROLE … SET …)",
            setting=setting,
        )
    timeout = settings.connect_timeout or None
    return Address(
        setting=setting,
        place=_describe(place, setting),
        url=_engine_url(place),
        arguments={
            "timeout": timeout,
            **_hosts(place),
            **_password(place, settings, setting),
            **driver_arguments(options, setting),
        },
        server_settings=_server_settings(options),
    )


def _describe(place: Place, setting: str) -> str:
    # Which of several addresses is meant, where it is not the usual one.
    usual = setting in {"AGENTOBS_DATABASE_URL", "AGENTOBS_HOST"}
    return place.describe() if usual else f"{place.describe()} ({setting})"


def _all_options(place: Place, settings: DatabaseSettings) -> dict[str, str]:
    options = dict(place.options)
    for name in _OPTION_PARTS:
        value = getattr(settings, name)
        # Beside a URL that decides for itself the setting is a default.
        if value is not None:
            options.setdefault(name, str(value))
    return options


def _server_settings(options: Mapping[str, str]) -> dict[str, str]:
    found = {name: options[name] for name in SERVER_SETTINGS if name in options}
    if FALLBACK_NAME in options:
        found.setdefault("application_name", options[FALLBACK_NAME])
    return found


def _engine_url(place: Place) -> URL:
    # Further hosts and sockets come as arguments: this one is what the engine shows.
    host = next((host for host in place.hosts if not host.startswith("/")), None)
    return URL.create(_DRIVER, username=place.user, host=host, database=place.database)


def _hosts(place: Place) -> dict[str, Any]:
    # Without a host the driver looks at PGHOST, then at the usual sockets.
    return {"host": list(place.hosts) or None, "port": list(place.ports) or None}


def _password(place: Place, settings: DatabaseSettings, setting: str) -> dict[str, Any]:
    given = settings.password
    if place.password is not None and given is not None:
        raise ConfigurationError(
            f"{setting} holds a password, and AGENTOBS_PASSWORD gives another: keep one",
            setting=setting,
        )
    if isinstance(given, SecretStr):
        return {"password": given.get_secret_value()}
    if given is not None:
        return {"password": partial(_ask, given)}
    return {} if place.password is None else {"password": place.password}


async def _ask(source: PasswordSource) -> str:
    """Ask the host's callable; the driver calls this for each physical connection."""
    try:
        answer = source()
        password = await answer if inspect.isawaitable(answer) else answer
    except Exception as error:
        raise ConnectionFailedError(
            f"the callable that gives the password raised {type(error).__name__}"
        ) from error
    if isinstance(password, SecretStr):
        password = password.get_secret_value()
    if not isinstance(password, str):
        raise ConnectionFailedError(
            f"the callable that gives the password returned {type(password).__name__}, not a str"
        )
    return password
