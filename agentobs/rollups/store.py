"""The connection that rollups are folded on, and the schema that they stand in."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, cast, func, literal_column, select, text

from agentobs.errors import ConflictError
from agentobs.rollups.tables import STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import CursorResult, Executable, Insert
    from sqlalchemy.ext.asyncio import AsyncConnection

# "aobs" in ASCII, so that no key of a host is the same by chance; the rest is the table's number.
_NAMESPACE = 1_634_689_651
_KEY = _NAMESPACE, cast(literal_column("tableoid"), Integer)
_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
# Sums of the rows that policies show would be taken for those of all: the server is to refuse.
_ALL_ROWS = text("SET LOCAL row_security = off")


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
    async def alone(self) -> AsyncIterator[None]:
        """Keep others from folding for several transactions; raise ConflictError where one does.

        A lock of the session, which is there before each transaction takes its snapshot: so it sees
        all that the last one who folded did.
        """
        await self._take("pg_try_advisory_lock")
        await self.connection.commit()
        try:
            yield
        finally:
            if not (self.connection.closed or self.connection.invalidated):
                await self.connection.rollback()
                await self._call("pg_advisory_unlock")
                await self.connection.commit()

    async def lock(self) -> None:
        """Keep others from folding until the transaction ends; raise ConflictError where one does.

        For a transaction whose statements have a snapshot each.
        """
        await self._take("pg_try_advisory_xact_lock")
        await self.connection.execute(_ALL_ROWS)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Begin a transaction of one snapshot, while `alone`."""
        async with self.connection.begin():
            await self.connection.execute(_ONE_SNAPSHOT)
            await self.connection.execute(_ALL_ROWS)
            yield

    async def _take(self, function: str) -> None:
        if not await self._call(function):
            raise ConflictError("the rollups are being folded by another one: run again")

    async def _call(self, function: str) -> bool:
        found = select(getattr(func, function)(*_KEY)).select_from(STATE).limit(1)
        return bool((await self.execute(found)).scalar_one())
