"""An event table with columns of the host's, rows in it, and the way to an archive and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from support.models import required_of_an_event

from agentobs import AgentTransformationEvent
from agentobs.bulk import copy_rows
from agentobs.maintenance.archive import ArchiveSource, load_archive, write_archive
from agentobs.maintenance.months import Month
from agentobs.maintenance.tables import EVENTS, Schema
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from agentobs.maintenance.archive import Archive, Manifest

SCHEMA = Schema("public")
# The migrations make the partition of the month in which they run.
MONTH = Month.of(datetime.now(UTC))
PARTITION = EVENTS.partition(MONTH)
SOURCE = ArchiveSource(SCHEMA, EVENTS, PARTITION, MONTH)
PAYLOAD = ("context_snapshot", "user_request")

# What the package knows nothing of; the last one is computed.
HOST_COLUMNS = {
    "host.note": "json",
    'the "place"': "point",
    "bytes:raw": "bytea",
    "span": "interval",
    "mood": "public.mood",
    "pair": "public.pair",
    "any_number": "numeric",
    "amount": "numeric(20,11)",
    "ratio": "double precision",
    "small": "smallint",
    "large": "bigint",
    "day": "date",
    "local": "timestamp without time zone",
    "matrix": "text[]",
    "numbers": "integer[]",
    "padded": "character(5)",
    "address": "inet",
    "window": "tstzrange",
    "kind_of": "regclass",
    "price": "money",
    "agentobs:verbatim": "text",
    "shout": "text GENERATED ALWAYS AS (upper(target_agent)) STORED",
}


async def add_host_columns(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TYPE public.mood AS ENUM ('calm', 'a \"b\" \\\\c')"))
        await connection.execute(text("CREATE TYPE public.pair AS (first text, second integer)"))
        for name, type_ in HOST_COLUMNS.items():
            await connection.exec_driver_sql(
                f"ALTER TABLE agent_transformation_events ADD COLUMN {quoted(name)} {type_}"
            )


async def archived(engine: AsyncEngine, target: Path | str, **options: Any) -> Archive:
    async with engine.connect() as connection:
        return await write_archive(connection, SOURCE, target, **options)


def manifest_of(archive: Archive) -> Path:
    return Path(archive.location.replace(".parquet", ".manifest.json"))


def events(count: int, **values: Any) -> list[dict[str, Any]]:
    """Return events of the month, a second apart."""
    return [
        required_of_an_event() | {"started_at": MONTH.first + timedelta(seconds=n)} | values
        for n in range(count)
    ]


async def store_events(engine: AsyncEngine, count: int, **values: Any) -> None:
    async with engine.begin() as connection:
        await copy_rows(connection, AgentTransformationEvent, events(count, **values))


async def store_rows(engine: AsyncEngine, rows: list[dict[str, str | None]]) -> None:
    """Store events whose values are written as SQL has them; NULL is None."""
    async with engine.begin() as connection:
        for number, row in enumerate(rows):
            await connection.exec_driver_sql(*_insert(number, row))


async def restored(engine: AsyncEngine, location: str | Path, **options: Any) -> Manifest:
    """Load an archive into a new table named `restored`."""
    async with engine.begin() as connection:
        await create_restored(connection)
        return await load_archive(
            connection, location, schema=SCHEMA, table=EVENTS, into="restored", **options
        )


async def create_restored(connection: AsyncConnection) -> None:
    await connection.execute(text("DROP TABLE IF EXISTS restored"))
    await connection.execute(
        text("CREATE TABLE restored (LIKE agent_transformation_events INCLUDING ALL)")
    )


async def differing_rows(engine: AsyncEngine, name: str = PARTITION) -> int:
    """Count the rows of a table and `restored` that are not the same, bit for bit."""
    compared = text(
        f"SELECT count(*) FROM {quoted(name)} a FULL JOIN restored b ON a.id = b.id "
        "WHERE a.id IS NULL OR b.id IS NULL OR NOT (a.* *= b.*)"
    )
    async with engine.connect() as connection:
        return int(await connection.scalar(compared) or 0)


def _insert(number: int, row: dict[str, str | None]) -> tuple[str, tuple[str, ...]]:
    given = {
        "id": f"agentobs_uuid7_at('{MONTH.first + timedelta(seconds=number)}')",
        "started_at": f"'{MONTH.first + timedelta(seconds=number)}'",
        "event_type": "'x'",
        "correlation_id": "gen_random_uuid()",
        "target_agent": "'y'",
    }
    texts = [value for value in row.values() if value is not None]
    places = iter(range(1, len(texts) + 1))
    given |= {
        name: "NULL" if value is None else f"${next(places)}::text::{_type(name)}"
        for name, value in row.items()
    }
    names = ", ".join(map(quoted, given))
    return (
        f"INSERT INTO agent_transformation_events ({names}) VALUES ({', '.join(given.values())})",
        tuple(texts),
    )


def _type(name: str) -> str:
    ours = {
        "context_snapshot": "jsonb",
        "context_keys": "text[]",
        "routing_confidence": "numeric(5,4)",
        "quality_score": "numeric(5,4)",
        "started_at": "timestamptz",
        "completed_at": "timestamptz",
        "success": "boolean",
        "context_size_bytes": "integer",
        "session_id": "uuid",
    }
    return HOST_COLUMNS.get(name) or ours.get(name, "text")
