"""All of the package works as a role that owns one schema of a database, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest_asyncio
from sqlalchemy import select, text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS
from support.maintenance import FEBRUARY, JANUARY, letting_go, maintained, middle_of, steps_left
from support.recorders import PATIENCE, strict_recorder
from support.roles import SCHEMA, as_role, make_schema, quoted, roles
from support.shell import HEAD, agentobs, connect

from agentobs import AgentDefinition, AgentTransformationEvent, Database, migrations
from agentobs.analytics import Window, agents, routing_summary
from agentobs.keys import uuid7_at
from agentobs.maintenance import restore
from agentobs.maintenance.archive import list_archives

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agentobs import DatabaseSettings


@pytest_asyncio.fixture
async def owner(empty: DatabaseSettings) -> AsyncIterator[DatabaseSettings]:
    """Yield settings of a role that may make nothing but what stands in its own schema."""
    async with roles(empty, "owner") as (name,):
        await make_schema(empty, name)
        yield as_role(empty, name).model_copy(update={"schema_name": SCHEMA})


@pytest_asyncio.fixture
async def migrated(owner: DatabaseSettings) -> DatabaseSettings:
    await migrations.upgrade(settings=owner)
    return owner


async def test_the_role_may_make_nothing_elsewhere(owner: DatabaseSettings) -> None:
    async with connect(owner) as connection:
        rights = await connection.execute(
            text("""
                SELECT rolsuper, has_database_privilege(current_database(), 'CREATE'),
                       has_database_privilege(current_database(), 'TEMPORARY'),
                       has_schema_privilege('public', 'USAGE')
                FROM pg_roles WHERE rolname = current_user
            """)
        )
        assert tuple(rights.one()) == (False, False, False, False)


async def test_it_migrates_up_compares_and_migrates_down(
    owner: DatabaseSettings, empty: DatabaseSettings
) -> None:
    async with connect(empty) as connection:
        before = await read_catalog(connection, quoted(SCHEMA))
        await migrations.upgrade(settings=owner)
        assert await migrations.current(settings=owner) == HEAD
        await migrations.check(settings=owner)
        assert (await read_catalog(connection))["tables"] == []

        await migrations.downgrade("base", settings=owner)
        assert await read_catalog(connection, quoted(SCHEMA)) == before


async def test_it_records_and_asks(migrated: DatabaseSettings, tmp_path: Path) -> None:
    with strict_recorder(migrated, tmp_path) as recorder:
        decision = recorder.routing_decision(selected_agent="agent-debugger")
        with recorder.transformation(target_agent="agent-debugger"):
            pass
        recorder.outcome(decision, success=True)
        recorder.barrier(PATIENCE)

    window = Window.last(timedelta(hours=1))
    async with Database(migrated) as database, database.session() as session:
        found = await agents(session, window)
        routed = await routing_summary(session, window)
    assert [(each.agent, each.executions) for each in found] == [("agent-debugger", 1)]
    assert routed.decisions == 1


async def test_it_maintains_what_came_to_default_and_folds_it(migrated: DatabaseSettings) -> None:
    async with Database(migrated) as database, database.begin() as session:
        session.add_all(_run_of(JANUARY.first + timedelta(hours=each)) for each in range(3))

    done = agentobs(
        "maintain",
        "--apply",
        settings=migrated,
        AGENTOBS_SCHEMA=SCHEMA,
    )

    assert done.returncode == 0, done.stderr + done.stdout
    assert f"make {EVENTS}_{JANUARY.suffix}" in done.stdout
    assert f"fold {EVENTS}" in done.stdout
    assert await steps_left(migrated) == []
    window = Window(JANUARY.first, JANUARY.end)
    async with Database(migrated) as database, database.session() as session:
        (found,) = await agents(session, window)
    assert found.executions == 3


async def test_it_archives_lets_go_and_restores(migrated: DatabaseSettings, tmp_path: Path) -> None:
    async with Database(migrated) as database, database.begin() as session:
        session.add_all(_run_of(middle_of(month)) for month in (JANUARY, FEBRUARY))

    await maintained(migrated, letting_go(JANUARY, archive=tmp_path))
    async with Database(migrated) as database, database.session() as session:
        assert len((await session.scalars(select(AgentTransformationEvent))).all()) == 1
    for archive in list_archives(tmp_path):
        await restore(archive.location, settings=migrated)

    async with Database(migrated) as database, database.session() as session:
        assert len((await session.scalars(select(AgentTransformationEvent))).all()) == 2


async def test_it_goes_down_and_up_with_rows(migrated: DatabaseSettings) -> None:
    async with Database(migrated) as database, database.begin() as session:
        session.add(AgentDefinition(agent_name="agent-a", agent_type="x", yaml_config={}))
        session.add(_run_of(datetime.now(UTC)))

    await migrations.downgrade("0003", settings=migrated)
    await migrations.upgrade(settings=migrated)

    async with Database(migrated) as database, database.session() as session:
        assert len((await session.scalars(select(AgentTransformationEvent))).all()) == 1


def _run_of(instant: datetime) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        id=uuid7_at(instant),
        started_at=instant,
        event_type="transformation_complete",
        correlation_id=uuid4(),
        target_agent="agent-debugger",
        success=True,
    )
