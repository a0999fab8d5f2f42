"""Texts that look like SQL are stored and found as they are, whichever way they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import ARRAY, String, insert, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from support.hostile import CLASSICS, STORABLE_TEXTS, UNSTORABLE, nothing_else_changes
from support.models import required_of_an_event
from support.shell import connect, connect_in_transaction

from agentobs import AgentDefinition, AgentTransformationEvent, RouterPerformanceMetric
from agentobs.bulk import copy_rows
from agentobs.errors import AgentobsError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from agentobs import DatabaseSettings
    from agentobs.models.base import Base

Rows = list[dict[str, Any]]
Way = Callable[[AsyncConnection, type["Base"], Rows], Awaitable[Any]]

MODELS: tuple[type[Base], ...] = (
    AgentDefinition,
    AgentTransformationEvent,
    RouterPerformanceMetric,
)
REQUIRED: dict[type[Base], dict[str, Any]] = {
    AgentDefinition: {"agent_version": "1.0.0"},
    AgentTransformationEvent: required_of_an_event(),
    RouterPerformanceMetric: {},
}
FIXED = {"agent_version", "definition_hash", "user_request_hash", "context_hash"}


async def by_the_models(connection: AsyncConnection, model: type[Base], rows: Rows) -> None:
    async with AsyncSession(connection) as session:
        session.add_all([model(**row) for row in rows])
        await session.flush()


async def by_core(connection: AsyncConnection, model: type[Base], rows: Rows) -> None:
    for row in rows:
        await connection.execute(insert(model).values(row))


async def by_many_rows(connection: AsyncConnection, model: type[Base], rows: Rows) -> None:
    await connection.execute(insert(model), rows)


WAYS: dict[str, Way] = {
    "models": by_the_models,
    "core": by_core,
    "many rows": by_many_rows,
    "copy": copy_rows,
}


def row_of(model: type[Base], given_text: str) -> dict[str, Any]:
    """Return a row that has the text in every column that takes one."""
    row: dict[str, Any] = {"id": uuid7_at(datetime.now(UTC))} | REQUIRED[model]
    for column in model.__table__.columns:
        if column.name in FIXED:
            continue
        if isinstance(column.type, String):
            row[column.name] = given_text[: column.type.length]
        elif isinstance(column.type, JSONB):
            row[column.name] = {given_text: [given_text, {given_text: given_text}]}
        elif isinstance(column.type, ARRAY):
            row[column.name] = [given_text, given_text]
    return row


async def stored_as_they_are(
    database: DatabaseSettings, model: type[Base], way: Way, texts: list[str]
) -> None:
    """Store a row for each text, compare them with what is there, and take them back."""
    rows = [row_of(model, each) for each in texts]
    async with connect_in_transaction(database) as connection, connection.begin() as transaction:
        await way(connection, model, rows)
        stored = model.__table__
        found = await connection.execute(
            select(*(stored.c[name] for name in rows[0])).where(
                stored.c.id.in_([row["id"] for row in rows])
            )
        )
        assert {row["id"]: dict(row) for row in found.mappings()} == {
            row["id"]: row for row in rows
        }
        await transaction.rollback()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
async def test_a_text_that_looks_like_sql_is_stored_as_it_is(
    guarded: DatabaseSettings, model: type[Base], way: str
) -> None:
    async with nothing_else_changes(guarded):
        await stored_as_they_are(guarded, model, WAYS[way], list(CLASSICS))


@settings(
    max_examples=10,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=STORABLE_TEXTS)
def test_any_text_is_stored_as_it_is(guarded: DatabaseSettings, texts: list[str]) -> None:
    async def story() -> None:
        for way in (by_many_rows, copy_rows):
            await stored_as_they_are(guarded, AgentTransformationEvent, way, texts)

    asyncio.run(story())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given_text", UNSTORABLE, ids=ascii)
async def test_a_text_that_postgresql_does_not_store_is_refused(
    guarded: DatabaseSettings, given_text: str, way: str
) -> None:
    row = {"id": uuid4(), "metric_type": given_text}
    async with nothing_else_changes(guarded), connect(guarded) as connection:
        with pytest.raises(AgentobsError):
            await WAYS[way](connection, RouterPerformanceMetric, [row])
