"""Settings to engine to session: how services reach the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from agentobs import jsonb
from agentobs.errors import ConfigurationError
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy import URL

    from agentobs.settings import DatabaseSettings

_LAST_PORT = 65535
_DRIVER = "postgresql+asyncpg"
_ACCEPTED_SCHEMES = frozenset({"postgres", "postgresql", _DRIVER})
_SSL_OPTIONS = ("ssl", "sslmode")
_ACCEPTED_OPTIONS = frozenset({"host", "port", *_SSL_OPTIONS})


def create_engine(settings: DatabaseSettings | None = None, **options: Any) -> AsyncEngine:
    """Create the engine of a service; the caller disposes of it.

    Without settings the environment is read. `options` go to SQLAlchemy's
    `create_async_engine` and win over what is chosen here; `connect_args` and
    `execution_options` win key by key. Raises ConfigurationError for a missing or unusable URL;
    connects to nothing yet.
    """
    settings = read_settings() if settings is None else settings
    # Whole, a host's execution_options would take the schema away, and rows would go elsewhere.
    for name, chosen in _conventions(settings).items():
        if name in options and isinstance(chosen, dict):
            options[name] = chosen | options[name]
    return engine_for(database_url(settings.database_url), settings, **options)


def create_session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Create the session factory of a service.

    Objects stay readable after a commit; nothing is loaded that was not asked for.
    """
    return async_sessionmaker(engine, expire_on_commit=False)


def engine_for(url: URL, settings: DatabaseSettings, **options: Any) -> AsyncEngine:
    """Create an engine for `url` with the conventions that every engine of the package shares."""
    return create_async_engine(url, **(_conventions(settings) | options))


def _conventions(settings: DatabaseSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        # Parameters are contexts and requests: they stay out of errors and logs.
        "hide_parameters": True,
        "json_serializer": jsonb.encode,
        "json_deserializer": jsonb.decode,
        "connect_args": {"server_settings": {"application_name": "agentobs"}},
    }
    if settings.schema_name is not None:
        chosen["execution_options"] = {"schema_translate_map": {None: settings.schema_name}}
    return chosen


def database_url(secret: SecretStr | None, *, setting: str = "AGENTOBS_DATABASE_URL") -> URL:
    """Return the URL for asyncpg; raise ConfigurationError, never quoting it, if it can't be."""
    if secret is None:
        raise ConfigurationError(
            f"{setting} is not set: give it a URL such as "
            "postgresql://user:password@host:5432/database, or, for a try-out, run "
            f"`agentobs server start` and set it to what `agentobs server url` prints",
            setting=setting,
        )
    text = secret.get_secret_value()
    try:
        # A second @ belongs to a password that is not encoded, and the parts would be cut wrongly:
        # what of it came to stand in the host would be shown.
        if text.partition("?")[0].count("@") > 1:
            raise ValueError("two @")  # noqa: TRY301 (one message for every URL that is none)
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The driver's message quotes the URL, and with it the password.
        raise ConfigurationError(
            f"{setting} is no URL: write postgresql://user:password@host:5432/database, "
            "with special characters of the password percent-encoded",
            setting=setting,
        ) from None
    return _for_asyncpg(url, setting)


def _for_asyncpg(url: URL, setting: str) -> URL:
    if url.drivername.lower() not in _ACCEPTED_SCHEMES:
        raise ConfigurationError(
            f"{setting} begins with {url.drivername}: only postgresql:// is spoken here "
            "(the driver is asyncpg)",
            setting=setting,
        )
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise ConfigurationError(
            f"{setting} names the port {url.port}: ports are 1 to {_LAST_PORT}", setting=setting
        )
    unknown = sorted(set(url.query) - _ACCEPTED_OPTIONS)
    if unknown:
        raise ConfigurationError(
            f"{setting} has the option {unknown[0]}: "
            f"the options are {', '.join(sorted(_ACCEPTED_OPTIONS))}",
            setting=setting,
        )
    url = url.set(drivername=_DRIVER)
    # asyncpg calls libpq's option by another name; of two modes, the weaker one might win.
    modes = [mode for name in _SSL_OPTIONS for mode in url.normalized_query.get(name, ())]
    if len(modes) > 1:
        raise ConfigurationError(
            f"{setting} gives more than one sslmode: keep one", setting=setting
        )
    return url.difference_update_query(_SSL_OPTIONS).update_query_pairs(
        ("ssl", mode) for mode in modes
    )
