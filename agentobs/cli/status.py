"""agentobs status: the database on one screen."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select, text
from sqlalchemy.orm import InstrumentedAttribute  # noqa: TC002 (pydantic reads what is beside it)

from agentobs.analytics.results import Result, Table, table_of
from agentobs.analytics.thresholds import Alert, alerts
from agentobs.cli.answers import AsCsv, Since, grid, show, shown
from agentobs.cli.terminal import AsJson, console, plain
from agentobs.embedded.default import with_database
from agentobs.keys import instant_of, is_time_ordered
from agentobs.maintenance.catalog import read_partitions
from agentobs.maintenance.tables import Schema
from agentobs.models import AgentDefinition, AgentTransformationEvent, RouterPerformanceMetric
from agentobs.sessions import Database, Health
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics import Window
    from agentobs.maintenance.catalog import TableState
    from agentobs.settings import DatabaseSettings

_KEYS: dict[str, InstrumentedAttribute[UUID]] = {
    "agent_transformation_events": AgentTransformationEvent.id,
    "router_performance_metrics": RouterPerformanceMetric.id,
}
# The names of the tables leave room for no more.
_TABLES = ("table", "rows", "size_mib", "first_month", "last_month", "lag_seconds")
_ROWS = {"rows": "rows est."}
_ALERTS = ("name", "subject", "value", "bound", "rows")
# Services name themselves as they like: what is told is who is connected to this database.
_SERVER = text(
    """
    SELECT current_schema() AS schema_name,
           (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database()) AS connections,
           current_setting('max_connections')::int AS max_connections
    """
)


class TableStatus(Result):
    """A table with its partitions.

    Rows and those of DEFAULT are the server's estimates, None where it never counted; the lag is
    the time since the newest row.
    """

    table: str
    rows: int | None
    size_mib: float
    months: int
    first_month: str | None
    last_month: str | None
    default_rows: int | None
    lag_seconds: float | None


class Status(BaseModel):
    """What `agentobs status` shows."""

    model_config = ConfigDict(frozen=True)

    health: Health
    schema_name: str
    connections: int
    max_connections: int
    active_definitions: int
    tables: Table[TableStatus]
    alerts: Table[Alert]


def command(
    since: Since = "24h",  # type: ignore[assignment]  # Typer parses the default, too
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the server, the revision, connections, tables, partitions, lag and alerts.

    Alerts are those of the window that fire: `agentobs alerts` shows all checks. CSV has the
    tables alone.
    """
    with with_database(read_settings()) as settings:
        found = asyncio.run(_status(settings, since))
    if as_csv:
        show(found.tables, (), as_json=as_json, as_csv=True)
    elif as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print_status(found, since)


async def _status(settings: DatabaseSettings, since: Window) -> Status:
    async with Database(settings) as database:
        health = await database.health()
        async with database.session() as session:
            server = (await session.execute(_SERVER)).mappings().one()
            schema = Schema(settings.schema_name or server["schema_name"])
            connection = await session.connection()
            states = await read_partitions(connection, schema)
            checks = await alerts(session, since)
            return Status(
                health=health,
                schema_name=schema.name,
                connections=server["connections"],
                max_connections=server["max_connections"],
                active_definitions=await _active_definitions(session),
                tables=table_of(TableStatus, [await _table(session, each) for each in states]),
                alerts=table_of(Alert, [check for check in checks if check.is_firing]),
            )


async def _active_definitions(session: AsyncSession) -> int:
    statement = select(func.count()).where(AgentDefinition.is_active)
    return await session.scalar(statement) or 0


async def _table(session: AsyncSession, state: TableState) -> TableStatus:
    months = [str(month) for month in state.months]
    default = next((part for part in state.partitions if part.is_default), None)
    counted = [part.rows for part in state.partitions if part.rows is not None]
    return TableStatus(
        table=state.table.name,
        rows=sum(counted) if counted else None,
        size_mib=sum(part.size for part in state.partitions) / 2**20,
        months=len(months),
        first_month=months[0] if months else None,
        last_month=months[-1] if months else None,
        default_rows=default.rows if default else None,
        lag_seconds=await _lag(session, _KEYS[state.table.name]),
    )


async def _lag(session: AsyncSession, key: InstrumentedAttribute[UUID]) -> float | None:
    # A host's clock may be ahead of ours, and a key of another version holds no instant.
    newest = await session.scalar(select(key).order_by(key.desc()).limit(1))
    if newest is None or not is_time_ordered(newest):
        return None
    return max(0.0, (datetime.now(UTC) - instant_of(newest)).total_seconds())


def _print_status(found: Status, since: Window) -> None:
    out, health = console(), found.health
    out.print(plain(f"PostgreSQL {health.server_version}, answered in {health.latency_ms:.1f} ms"))
    revision = f"schema {found.schema_name} at revision {health.revision}"
    out.print(
        plain(f"{revision}, {found.connections} of {found.max_connections} connections in use")
    )
    out.print(plain(f"{found.active_definitions:,} active agent definitions"))
    out.print()
    out.print(grid(list(found.tables), _TABLES, _ROWS))
    for table in found.tables:
        if table.default_rows:
            rows = f"about {table.default_rows:,} rows of {table.table}"
            out.print(plain(f"{rows} are in no month (DEFAULT)"))
    out.print()
    window = f"since {shown('', since.since)} UTC"
    out.print(plain(f"alerts {window}" if found.alerts else f"no alert {window}"))
    if found.alerts:
        out.print(grid(list(found.alerts), _ALERTS))
