"""What the role of a service may do by `agentobs db grant --writer`, and what it may not."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, text
from support.event_rows import EVENTS, METRICS
from support.maintenance import JANUARY, maintained, middle_of, partitions_of
from support.pools import eventually
from support.recorders import PATIENCE, strict_recorder
from support.registry import write
from support.roles import SCHEMA, Granted, granted, quoted, role_of
from support.shell import agentobs, connect, environment

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    Database,
    RouterPerformanceMetric,
    RoutingDecision,
    Transformation,
    migrations,
    record_in,
)
from agentobs.analytics import Window, agents, refresh_agent_scores
from agentobs.errors import DatabaseError
from agentobs.keys import uuid7_at
from agentobs.registry import find_agents_by_capabilities, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

LEAVES = [f"{EVENTS}_default", f"{METRICS}_default", f"{EVENTS}_{{month}}"]
FORBIDDEN = [
    *(f"DELETE FROM {table}" for table in ("agent_definitions", EVENTS, METRICS)),
    *(f"TRUNCATE {table}" for table in ("agent_definitions", EVENTS, METRICS)),
    *(f"ALTER TABLE {table} ADD note text" for table in ("agent_definitions", EVENTS)),
    f"DROP TABLE {METRICS}",
    f"ALTER TABLE {EVENTS} DISABLE TRIGGER ALL",
    f"CREATE TABLE {EVENTS}_y2030m01 (id uuid)",
    *(f"SELECT * FROM {leaf}" for leaf in LEAVES),
    *(f"INSERT INTO {leaf} (id) VALUES (gen_random_uuid())" for leaf in LEAVES),
    *(f"UPDATE {leaf} SET correlation_id = NULL" for leaf in LEAVES),
    *(f"DELETE FROM {leaf}" for leaf in LEAVES),
    *(
        f"SELECT * FROM {table}"
        for table in (
            f"{EVENTS}_original_ids",
            "agentobs_partitions",
            "agentobs_changed_rows",
            "agentobs_rollup_state",
            "agentobs_execution_rollups",
            "agentobs_attached_partitions",
        )
    ),
    "UPDATE agentobs_alembic_version SET version_num = '0001'",
    "SELECT setval('agentobs_rollup_watermark', 1)",
    "SELECT agentobs_lock_parents(true)",
    "CREATE TEMPORARY TABLE mine (id uuid)",
    "CREATE SCHEMA mine",
]
DIES = """
import os, sys
from agentobs import Recorder
recorder = Recorder(delivery="spool", folder=sys.argv[1], flush_interval=3600)
recorder.routing_decision(selected_agent="agent-spooled")
os._exit(1)
"""


@pytest.fixture(scope="module")
def database(agentobs_server: URL) -> Iterator[Granted]:
    with granted(agentobs_server) as found:
        yield found


def run_of(agent: str, instant: datetime) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        id=uuid7_at(instant),
        started_at=instant,
        event_type="transformation_complete",
        correlation_id=uuid4(),
        target_agent=agent,
        total_execution_duration_ms=10,
        success=True,
    )


async def event_of(database: Granted, agent: str) -> AgentTransformationEvent | None:
    async with Database(database.owner) as found, found.session() as session:
        event = AgentTransformationEvent
        return await session.scalar(select(event).where(event.target_agent == agent))


async def test_it_is_healthy(database: Granted) -> None:
    async with Database(database.writer) as found:
        health = await found.health()

    assert (health.ok, health.reason) == (True, None)


async def test_it_records_from_start_to_outcome(database: Granted, tmp_path: Path) -> None:
    async def outer_is_stored() -> bool:
        return await event_of(database, "agent-outer") is not None

    # A run that goes on is written at its start, and completed in that row.
    with strict_recorder(database.writer, tmp_path, announce_after=0) as recorder:
        decision = recorder.routing_decision(selected_agent="agent-recorded")
        with recorder.transformation(target_agent="agent-outer") as outer:
            recorder.record(Transformation(target_agent="agent-inner", success=True))
            await eventually(outer_is_stored)
        for _ in range(10):
            recorder.routing_decision(selected_agent="agent-by-copy")
        recorder.barrier(PATIENCE)
        recorder.outcome(decision, success=True, quality_score=0.9)
        recorder.feedback(decision, "helpful")
        recorder.barrier(PATIENCE)
        assert recorder.statistics().dead_lettered == {}

    stored, inner = [await event_of(database, f"agent-{name}") for name in ("outer", "inner")]
    assert stored is not None
    assert inner is not None
    assert (stored.success, inner.parent_event_id) == (True, outer.id)
    async with Database(database.owner) as found, found.session() as session:
        row = await session.get_one(RouterPerformanceMetric, decision.id)
    assert (row.actual_success, row.feedback_type) == (True, "helpful")


async def test_what_a_process_left_in_its_spool_is_replayed(
    database: Granted, tmp_path: Path
) -> None:
    env = environment(database.writer, AGENTOBS_SCHEMA=SCHEMA)
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], env=env, check=False)

    done = agentobs(
        *("spool", "replay", "--folder", str(tmp_path)),
        settings=database.writer,
        AGENTOBS_SCHEMA=SCHEMA,
    )

    assert done.stdout == "replayed: 1 records\n", done.stderr


async def test_it_records_in_a_transaction_of_its_own(database: Granted) -> None:
    async with Database(database.writer) as found, found.begin() as session:
        record_in(session, RoutingDecision(selected_agent="agent-in"))
        await session.flush()
        record_in(session, Transformation(target_agent="agent-in", success=True))


async def test_it_loads_definitions_finds_them_and_switches_them_off(
    database: Granted, tmp_path: Path
) -> None:
    path = write(tmp_path / "agents/a.yaml", "agent-synced")
    write(tmp_path / "agents/b.yaml", "agent-kept")

    async with Database(database.writer) as found:
        for expected in ("added", "unchanged"):
            async with found.begin() as session:
                report = await sync_folder(session, tmp_path / "agents")
            assert len(getattr(report, expected)) == 2
        write(path, "agent-synced", more="domain: changed\n")
        async with found.begin() as session:
            assert len((await sync_folder(session, tmp_path / "agents")).updated) == 1
            assert await find_agents_by_capabilities(session, ["reading"])
        path.unlink()
        async with found.begin() as session:
            report = await sync_folder(session, tmp_path / "agents", prune=True)
    assert [each.name for each in report.deactivated] == ["agent-synced"]


async def test_it_brings_scores_of_definitions_up_to_date(database: Granted) -> None:
    definition = AgentDefinition(agent_name="agent-scored", agent_type="x", yaml_config={})
    async with Database(database.writer) as found, found.begin() as session:
        session.add(definition)
        await session.flush()
        run = run_of("agent-scored", datetime.now(UTC) - timedelta(minutes=1))
        run.agent_definition_id = definition.id
        session.add(run)
        await session.flush()
        changed = await refresh_agent_scores(session, Window.last(timedelta(hours=1)))

    assert "agent-scored" in [each.agent for each in changed]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_it_may_not(database: Granted, statement: str) -> None:
    this_month = datetime.now(UTC).strftime("y%Ym%m")
    async with connect(database.writer) as connection:
        await connection.execute(
            text("SELECT set_config('search_path', quote_ident(:name), false)"), {"name": SCHEMA}
        )
        with pytest.raises(DatabaseError) as caught:
            await connection.exec_driver_sql(statement.format(month=this_month))

    assert caught.value.sqlstate == "42501"


async def test_the_orm_deletes_nothing(database: Granted) -> None:
    async with Database(database.writer) as found, found.session() as session:
        with pytest.raises(DatabaseError, match="permission denied"):
            await session.execute(delete(AgentTransformationEvent))


async def test_months_that_maintenance_made_later_take_its_rows_and_mark_their_hours(
    database: Granted,
) -> None:
    instant = middle_of(JANUARY)
    async with Database(database.writer) as found, found.begin() as session:
        session.add(run_of("agent-of-january", instant))
    await maintained(database.owner)

    async with connect(database.superuser) as connection:
        assert f"{EVENTS}_{JANUARY.suffix}" in await partitions_of(connection)
    async with Database(database.writer) as found, found.begin() as session:
        session.add(run_of("agent-of-january", instant))
        row = run_of("agent-of-january", instant + timedelta(seconds=1))
        session.add(row)
        await session.flush()
        row.quality_score = 1  # type: ignore[assignment]
    async with connect(database.owner) as connection:
        marks = text(f"SELECT count(*) FROM {quoted(SCHEMA)}.agentobs_rollup_marks")
        assert await connection.scalar(marks)
    window = Window(JANUARY.first, JANUARY.end)
    async with Database(database.reader) as found, found.session() as session:
        (of_january,) = await agents(session, window)
    assert of_january.executions == 3


async def test_a_writer_that_is_a_reader_too_asks_the_rollups(database: Granted) -> None:
    async with Database(database.writer) as found:
        async with found.session() as session:
            with pytest.raises(DatabaseError, match="permission denied"):
                await agents(session, Window.last(timedelta(hours=1)))
        await migrations.grant(
            readers=[role_of(database.writer)], apply=True, settings=database.owner
        )
        async with found.session() as session:
            await agents(session, Window.last(timedelta(hours=1)))
