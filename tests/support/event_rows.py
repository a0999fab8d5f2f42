"""Rows of the event tables by plain SQL, as a database of an older revision has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

EVENTS = "agent_transformation_events"
METRICS = "router_performance_metrics"
# Each table with its instant, and the least that makes a row of it.
REQUIRED = {
    EVENTS: {
        "event_type": "'x'",
        "correlation_id": "gen_random_uuid()",
        "target_agent": "'agent-x'",
    },
    METRICS: {"metric_type": "'x'"},
}
INSTANTS = {EVENTS: "started_at", METRICS: "measured_at"}
PARENT_KEY = f"{EVENTS}_parent_event_id_fkey"

FEBRUARY = datetime(2024, 2, 29, 12, tzinfo=UTC)
MARCH = datetime(2024, 3, 15, 12, tzinfo=UTC)


def literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"


async def insert_row(connection: AsyncConnection, table: str = EVENTS, **values: object) -> UUID:
    """Insert a row with these values, and return its id."""
    row = REQUIRED[table] | {name: literal(value) for name, value in values.items()}
    found: UUID = (
        await connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())}) "
            "RETURNING id"
        )
    ).scalar_one()
    return found


async def insert_child(connection: AsyncConnection, parent: object, **values: object) -> UUID:
    return await insert_row(connection, EVENTS, parent_event_id=parent, **values)


async def parent_of(connection: AsyncConnection, key: object) -> UUID | None:
    query = text(f"SELECT parent_event_id FROM {EVENTS} WHERE id = :key")
    found: UUID | None = (await connection.execute(query, {"key": key})).scalar_one()
    return found


async def partition_of(connection: AsyncConnection, key: object, table: str = EVENTS) -> str:
    """Return the end of the partition's name: y2024m02, or default."""
    query = text(f"SELECT tableoid::regclass::text FROM {table} WHERE id = :key")
    name: str = (await connection.execute(query, {"key": key})).scalar_one()
    return name.removeprefix(f"{table}_")


async def new_key_of(connection: AsyncConnection, original: object, table: str = EVENTS) -> UUID:
    """Return the id that a row has now which had another one."""
    query = text(f"SELECT id FROM {table}_original_ids WHERE original_id = :original")
    found: UUID = (await connection.execute(query, {"original": original})).scalar_one()
    return found


async def rows_of(connection: AsyncConnection, table: str = EVENTS) -> list[Any]:
    """Return all rows as texts, in one order."""
    query = text(f"SELECT row_to_json(t)::text, t::text FROM {table} t ORDER BY 2")
    return [tuple(row) for row in await connection.execute(query)]
