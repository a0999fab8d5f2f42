"""A schema may be called anything: rows live in it, move, go and come back, and nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from pydantic import ValidationError
from sqlalchemy import select
from support.hostile import ANY_TEXT, add_canary, state_of
from support.maintenance import FEBRUARY, letting_go, maintained, middle_of, steps_left
from support.recorders import strict_recorder
from support.rollups import opened, run
from support.shell import connect

from agentobs import (
    AgentTransformationEvent,
    Database,
    DatabaseSettings,
    Transformation,
    migrations,
)
from agentobs.analytics import Window, agents
from agentobs.bulk import copy_rows
from agentobs.keys import uuid7_at
from agentobs.maintenance import release, restore
from agentobs.maintenance.archive import list_archives, verify_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MARKS = "'; DROP TABLE canary--\"%s %(x)s :n\\:b ::c{}{schema}}}$$ $1`/*"
LETTERS = "Ünï.códe " + "é" * 25 + "X"
EVENT = AgentTransformationEvent
MONTH = Window(FEBRUARY.first, FEBRUARY.end)
# PostgreSQL cuts a longer one.
_LONGEST = 63
PARTITION = f"{EVENT.__tablename__}_{FEBRUARY.suffix}"


@asynccontextmanager
async def schema_of(database: DatabaseSettings, name: str) -> AsyncIterator[DatabaseSettings]:
    """Yield the settings of a schema with our tables, beside a canary; all is as before then."""
    assert len(name.encode()) <= _LONGEST
    await add_canary(database)
    async with connect(database) as connection:
        before = await state_of(connection)
        settings = database.model_copy(update={"schema_name": name})
        await migrations.upgrade(settings=settings)
        yield settings
        await migrations.downgrade("base", settings=settings)
        left = await state_of(connection)
    left["objects"].remove(("schema", name, ""))
    assert left == before


async def write(database: DatabaseSettings, folder: Path) -> None:
    """Write rows of a month that has no partition yet, each in another way."""
    instant = middle_of(FEBRUARY)
    payload: dict[str, Any] = {"context_snapshot": {"a": 1}, "user_request": "why"}
    async with opened(database) as session:
        session.add(run(instant, target_agent="model", **payload))
        row = {"id": uuid7_at(instant), "started_at": instant, "target_agent": "copy", **payload}
        row |= {"event_type": "x", "correlation_id": uuid7_at(instant)}
        await copy_rows(session, EVENT, [row])
        await session.commit()
    with strict_recorder(database, folder) as recorder:
        recorder.record(Transformation(target_agent="recorder", started_at=instant, success=True))


async def rows_of(database: DatabaseSettings) -> list[dict[str, Any]]:
    few = database.model_copy(update={"pool_min_size": 1})
    async with Database(few) as db, db.read_session() as session:
        found = await session.execute(select(EVENT.__table__).order_by(EVENT.id))
        assert (await db.health()).ok
        return [dict(row) for row in found.mappings()]


async def names_of_agents(database: DatabaseSettings) -> list[str]:
    async with opened(database) as session:
        return [row.agent for row in await agents(session, MONTH)]


async def let_go(database: DatabaseSettings, folder: Path, what: str) -> str:
    """Let the month go; return the archive of it."""
    await maintained(database, letting_go(FEBRUARY, what, folder))
    kind = "rows" if what == "keep" else "payload"
    found = [each for each in list_archives(folder) if each.manifest and each.manifest.kind == kind]
    return next(each.location for each in found if PARTITION in each.shown)


@pytest.mark.parametrize("name", [MARKS, LETTERS], ids=["marks", "letters"])
async def test_rows_live_in_it_and_move_to_their_months(
    agentobs_empty_database: DatabaseSettings, tmp_path: Path, name: str
) -> None:
    async with schema_of(agentobs_empty_database, name) as database:
        await migrations.check(settings=database)
        await write(database, tmp_path)
        written = await rows_of(database)

        await maintained(database)

        assert await steps_left(database) == []
        assert await rows_of(database) == written
        assert await names_of_agents(database) == ["copy", "model", "recorder"]


async def test_rows_go_from_it_and_come_back(
    agentobs_empty_database: DatabaseSettings, tmp_path: Path
) -> None:
    async with schema_of(agentobs_empty_database, MARKS) as database:
        await write(database, tmp_path / "recorder")
        written = await rows_of(database)

        payload = await let_go(database, tmp_path, "keep_payload")
        assert {row["user_request"] for row in await rows_of(database)} == {None}
        await restore(payload, settings=database)
        assert await rows_of(database) == written
        await release(PARTITION, settings=database)

        archive = await let_go(database, tmp_path, "keep")
        assert await rows_of(database) == []
        assert verify_archive(archive).schema_name == MARKS
        await restore(archive, settings=database)
        async with opened(database) as session:
            await session.delete(await session.get_one(EVENT, written[0]["id"]))
            await session.commit()
        await restore(archive, settings=database)
        assert await rows_of(database) == written


@given(name=ANY_TEXT)
def test_any_name_is_taken_as_it_is_or_refused(name: str) -> None:
    chosen: dict[str, Any] = {"AGENTOBS_SCHEMA": name}
    with suppress(ValidationError):
        assert DatabaseSettings(host="db.invalid", **chosen).schema_name == name
