"""What happens around each statement: it is counted, and run again where its plan was stale.

A migration may change what a prepared statement returns. The server then refuses to run it, and
has done nothing: where the statement began its transaction, it is prepared anew and run once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event

from agentobs.sessions.pool_watch import count_query

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext


def listen_to_statements(engine: Engine) -> None:
    """Follow the statements of an engine."""
    event.listen(engine, "do_execute", _execute)
    event.listen(engine, "do_executemany", _count_many)


def _execute(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
) -> bool:
    proxy = context.root_connection.connection
    count_query(proxy)
    driver = cast("Any", proxy.driver_connection)
    is_first = not (driver.is_closed() or driver.is_in_transaction())
    try:
        cursor.execute(statement, parameters)
    except context.dialect.loaded_dbapi.InvalidCachedStatementError as error:
        if not is_first:
            raise
        proxy.rollback()
        # Forgets the plans of every connection: those of the others are as stale.
        context.handle_dbapi_exception(error)
        context.pre_exec()
        cursor.execute(statement, parameters)
    return True


def _count_many(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext
) -> None:
    del cursor, statement, parameters
    count_query(context.root_connection.connection)
