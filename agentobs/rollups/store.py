"""The connection that rollups are folded on, and the schema that they stand in."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agentobs.rollups.tables import STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import CursorResult, Executable, Insert
    from sqlalchemy.ext.asyncio import AsyncConnection

_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


@dataclass(frozen=True)
class Store:
    """Where the tables are; the connection is its caller's."""

    connection: AsyncConnection
    schema: str

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Execute a statement whose tables name no schema."""
        return await self.connection.execute(
            statement,
            parameters,
            execution_options={"schema_translate_map": {None: self.schema}},
        )

    async def execute_many(self, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute an INSERT for each of several rows."""
        await self.connection.execute(
            statement, rows, execution_options={"schema_translate_map": {None: self.schema}}
        )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Begin a transaction of one snapshot that alone folds.

        Raises ConflictError where another one does: its work need not be done again.
        """
        async with self.connection.begin():
            await self.connection.execute(_ONE_SNAPSHOT)
            await self.lock()
            yield

    async def lock(self) -> None:
        """Keep others from folding or closing until the transaction ends, without a wait.

        A lock of the table takes no snapshot, as one of a row would: the snapshot that comes after
        it sees all that the last one who had it did.
        """
        preparer = self.connection.dialect.identifier_preparer
        table = f"{preparer.quote_schema(self.schema)}.{preparer.quote(STATE.name)}"
        lock = f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE NOWAIT"
        await self.connection.exec_driver_sql(lock)
