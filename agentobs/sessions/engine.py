"""Settings to engine to session."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from agentobs import jsonb
from agentobs.errors import AgentobsError, InvalidValueError
from agentobs.sessions.address import Address, database_address, reading_address
from agentobs.sessions.failures import (
    connection_failed,
    driver_error,
    explain_error,
    remove_data,
    without_data,
)
from agentobs.sessions.pool import WatchedPool
from agentobs.sessions.pool_watch import PoolLimits, PoolWatch
from agentobs.sessions.statements import listen_to_statements
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

    from agentobs.settings import DatabaseSettings

_APPLICATION_NAME = "agentobs"
_LOGGING_NAME = "agentobs"
_ENGINE_LOGGER = "sqlalchemy.engine.Engine"
# Through a transaction pooler a prepared statement may be asked for on another backend.
_NO_STATEMENT_CACHE = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def create_engine(settings: DatabaseSettings | None = None, **options: Any) -> AsyncEngine:
    """Create the engine of a service; the caller disposes of it.

    Without settings the environment is read. `options` go to SQLAlchemy's
    `create_async_engine` and win over what is chosen here; `connect_args` and
    `execution_options` win key by key. Raises ConfigurationError for a missing or unusable
    address; connects to nothing yet.
    """
    settings = read_settings() if settings is None else settings
    chosen = _service_options(settings, settings.pool_size, options)
    return engine_for(database_address(settings), settings, **_merged(chosen, options))


def create_read_engine(settings: DatabaseSettings | None = None, **options: Any) -> AsyncEngine:
    """Create the engine of read sessions, with a pool of its own; the caller disposes of it.

    It goes to `read_url`, where that is set, and its connections refuse every write. `options`
    are as those of `create_engine`.
    """
    settings = read_settings() if settings is None else settings
    # None of its connections is kept open: it may be used once a day.
    few = settings.model_copy(update={"pool_min_size": 0})
    chosen = _merged(_service_options(few, settings.read_pool_size, options), _read_only(settings))
    engine = engine_for(reading_address(settings), settings, **_merged(chosen, options))
    event.listen(engine.sync_engine, "connect", partial(_begin_read_only, engine.dialect))
    return engine


def create_session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Create the session factory of a service.

    Objects stay readable after a commit; nothing is loaded that was not asked for.
    """
    return async_sessionmaker(engine, expire_on_commit=False)


def in_autocommit(engine: AsyncEngine, settings: DatabaseSettings) -> AsyncEngine:
    """Return the engine with each statement a transaction of its own: one round trip, not three.

    Through a transaction pooler, where a statement must not leave its transaction's backend
    between its preparation and its execution, the engine is returned as it is.
    """
    if settings.pooler is not None:
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def engine_for(address: Address, settings: DatabaseSettings, **options: Any) -> AsyncEngine:
    """Create an engine with the conventions that every engine of the package shares."""
    chosen = _merged(_conventions(address, settings), options)
    engine = create_async_engine(address.url, **chosen)
    if "watch" in chosen:
        chosen["watch"].listen_to(engine.sync_engine, address.place)
    # At DEBUG SQLAlchemy logs each row that is read, whatever hide_parameters says.
    logging.getLogger(f"{_ENGINE_LOGGER}.{chosen['logging_name']}").addFilter(_shows_no_row)
    event.listen(engine.sync_engine, "do_connect", _connector(address))
    event.listen(engine.sync_engine, "handle_error", explain_error, retval=True)
    listen_to_statements(engine.sync_engine)
    return engine


def _conventions(address: Address, settings: DatabaseSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        # Parameters are contexts and requests: they stay out of errors and logs.
        "hide_parameters": True,
        "logging_name": _LOGGING_NAME,
        "json_serializer": _encode,
        "json_deserializer": jsonb.decode,
        "connect_args": {
            **address.arguments,
            "server_settings": _server_settings(address, settings),
        },
    }
    if settings.pooler is not None:
        chosen["connect_args"] |= _NO_STATEMENT_CACHE
    if settings.schema_name is not None:
        chosen["execution_options"] = {"schema_translate_map": {None: settings.schema_name}}
    return chosen


def _server_settings(address: Address, settings: DatabaseSettings) -> dict[str, str]:
    named = {"application_name": _APPLICATION_NAME, **address.server_settings}
    if settings.application_name is not None:
        named["application_name"] = settings.application_name
    return named


def _service_options(
    settings: DatabaseSettings, size: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    chosen: dict[str, Any] = {"connect_args": {"command_timeout": settings.command_timeout or None}}
    if "poolclass" in options:
        return chosen
    return chosen | {
        "poolclass": WatchedPool,
        "watch": PoolWatch(PoolLimits.of(settings)),
        "pool_size": size,
        # Overflow connections are closed at every return, and opened again at the next check-out.
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout,
        # The last one used goes out first, so that those beyond the need become idle.
        "pool_use_lifo": True,
    }


def _read_only(settings: DatabaseSettings) -> dict[str, Any]:
    # It holds in autocommit, too. A transaction pooler does not pass it on.
    if settings.pooler is not None:
        return {}
    return {"connect_args": {"server_settings": {"default_transaction_read_only": "on"}}}


def _begin_read_only(
    dialect: Any, connection: DBAPIConnection, record: ConnectionPoolEntry
) -> None:
    """Let each transaction of a new connection say so, whatever the session sets later."""
    del record
    dialect.set_readonly(connection, True)


def _merged(chosen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Let `options` win key by key: whole, a host's would take the schema away, for one."""
    merged = {**chosen, **options}
    for name in chosen.keys() & options.keys():
        if isinstance(chosen[name], dict) and isinstance(options[name], dict):
            merged[name] = _merged(chosen[name], options[name])
    return merged


def _shows_no_row(record: logging.LogRecord) -> bool:
    # A logging token of the host stands in front.
    return not str(record.msg).endswith("Row %r")


def _encode(value: Any) -> str:
    try:
        return jsonb.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(None, str(error)) from None


def _connector(address: Address) -> Callable[..., DBAPIConnection]:
    def connect(
        dialect: Dialect, record: ConnectionPoolEntry, args: list[Any], options: dict[str, Any]
    ) -> DBAPIConnection:
        del record
        try:
            return dialect.connect(*args, **options)
        except AgentobsError:
            raise
        # A host name that can't be encoded is a UnicodeError.
        except (OSError, UnicodeError, dialect.loaded_dbapi.Error) as error:
            failed = connection_failed(error, address.place)
            remove_data(error)
            raise failed from without_data(driver_error(error))

    return connect
