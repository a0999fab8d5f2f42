"""What every step of a run works with: one connection, one schema, and who watches."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.maintenance.tables import Schema
from agentobs.migrations.connection import default_schema, open_connection
from agentobs.migrations.pooler import require_direct_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.maintenance.plan import Plan, Step
    from agentobs.settings import DatabaseSettings


# What roles and databases have set is made for services. Months are those of UTC, and an interval
# of a month is one of the session's time zone; an archive takes hours; and once a lock is there,
# the rows are those of that moment.
_SETTLE = text(
    """
    SELECT set_config(name, value, false) FROM (VALUES
        ('timezone', 'UTC'), ('statement_timeout', '0'),
        ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
        ('default_transaction_isolation', 'read committed')
    ) AS settings (name, value)
    -- Not every server has each of them.
    WHERE name = 'timezone' OR name IN (SELECT name FROM pg_settings)
    """
)


class Watcher:
    """Hears how a run goes on; a command line or a log overrides what it wants to hear."""

    def planned(self, plan: Plan) -> None:
        """Hear the plan, before its first step."""

    def started(self, step: Step) -> None:
        """Hear that a step begins."""

    def progressed(self, rows: int, total: int) -> None:
        """Hear how many rows of the step are done, of about how many."""

    def blocked(self, blockers: Sequence[str]) -> None:
        """Hear who is in the way of the step, which is tried again."""

    def finished(self, step: Step) -> None:
        """Hear that a step is done."""


@dataclass(frozen=True)
class Run:
    """The database that a run works on; a step is tried again for `patience_seconds`."""

    connection: AsyncConnection
    schema: Schema
    watcher: Watcher
    patience_seconds: float


@asynccontextmanager
async def open_run(
    settings: DatabaseSettings, watcher: Watcher, patience_seconds: float
) -> AsyncIterator[Run]:
    """Open the connection of a run: the direct one, as of migrations, without a time limit.

    Raises PoolerRefusedError behind a transaction pooler, and ConnectionFailedError.
    """
    async with open_connection(settings, application_name="agentobs maintenance") as connection:
        await connection.run_sync(require_direct_connection)
        schema = settings.schema_name
        # A role that owns the named one may have no schema of its own.
        if schema is None:
            schema = await connection.run_sync(default_schema)
        await connection.execute(_SETTLE)
        await connection.commit()
        yield Run(connection, Schema(schema), watcher, patience_seconds)
