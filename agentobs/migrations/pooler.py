"""Tell a transaction pooler, through which a session lock means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.errors import PoolerRefusedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BACKEND = text("SELECT pg_backend_pid()")

# Another client of the pooler may snatch the backend between the two looks at it.
_TRIES = 3


def require_direct_connection(connection: Connection) -> None:
    """Raise PoolerRefusedError when transactions of this connection change their backend."""
    if _is_proxied(connection) and any(_shares_backend(connection) for _ in range(_TRIES)):
        raise PoolerRefusedError(
            "this URL goes through a transaction pooler, where the lock that keeps two migration "
            "runs apart means nothing: set AGENTOBS_MIGRATION_URL to the server's own address"
        )


def _is_proxied(connection: Connection) -> bool:
    """Compare the backend that the driver was told of at connect with the one that answers.

    A pooler tells its clients a process id of its own making.
    """
    driver = connection.connection.driver_connection
    announced = getattr(driver, "get_server_pid", None)
    return announced is not None and announced() != _backend(connection)


def _shares_backend(connection: Connection) -> bool:
    """Tell whether another client gets the backend of this connection while it is open."""
    mine = _backend(connection)
    with connection.engine.connect() as other, other.begin():
        return bool(other.scalar(_BACKEND) == mine)


def _backend(connection: Connection) -> int | None:
    pid: int | None = connection.scalar(_BACKEND)
    connection.commit()
    return pid
