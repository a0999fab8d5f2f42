"""Data definition: statements that take no parameters, so that values stand in their text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import literal
from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection

# Another parameter style would double each % in a text.
_DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


async def execute_ddl(connection: AsyncConnection, statement: str) -> None:
    """Execute a statement as it is: a colon in it is no parameter."""
    await connection.exec_driver_sql(statement)


def literal_of(value: object) -> str:
    """Return a value as SQL text, quoted by the dialect."""
    compiled = literal(value).compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
    return str(compiled)
