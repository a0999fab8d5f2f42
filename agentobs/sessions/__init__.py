"""Settings to engine to session: how services reach the database.

::

    shared          one Database for each event loop
    database        what services see: start, sessions, health, statistics, stop
    open_pools      what exists between start and stop
    health          whether the database answers, and its revision
    engine          engines and session factories, with the conventions of the package
    pool            SQLAlchemy's queue, watched
    pool_watch      the limits of each connection, and the statistics
    statements      what happens around each statement
    failures        the error seam: what is told of an error, and what is not
    advice          what one can do about it
    both_errors     errors that are also SQLAlchemy's
    address         where the database is, ready for the driver
    options         the options of libpq as arguments of the driver
    tls             those of them that are about certificates
    urls            a URL into its parts
"""

from __future__ import annotations

from agentobs.sessions.database import Database
from agentobs.sessions.engine import (
    create_engine,
    create_read_engine,
    create_session_factory,
)
from agentobs.sessions.health import Health
from agentobs.sessions.pool_watch import PoolStats
from agentobs.sessions.shared import close_database, get_database

__all__ = [
    "Database",
    "Health",
    "PoolStats",
    "close_database",
    "create_engine",
    "create_read_engine",
    "create_session_factory",
    "get_database",
]
