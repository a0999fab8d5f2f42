"""Transactions that read one snapshot: what is decided by one statement holds for the next."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Open a transaction that reads what was committed when it began, and commit it at the end.

    It writes to tables that no other writes to, so that it never fails for another's sake.
    """
    with connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield
