"""What the role of a dashboard may do by `agentobs db grant --reader`, and what it may not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from support.event_rows import EVENTS, METRICS
from support.maintenance import JANUARY, maintained, middle_of
from support.roles import SCHEMA, Granted, granted
from support.shell import agentobs, connect

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    Database,
    RouterPerformanceMetric,
)
from agentobs import analytics as ask
from agentobs.analytics import Window
from agentobs.errors import DatabaseError
from agentobs.keys import uuid7_at
from agentobs.registry import find_agents_by_capabilities, find_agents_by_triggers
from agentobs.testing.databases import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

WORKFLOW = UUID("0190a7f8-2d3e-7c41-b1aa-5f0d1c2b3a49")
NOW = datetime.now(UTC)
WINDOW = Window(JANUARY.first, NOW)
Question = Callable[[AsyncSession], Awaitable[object]]
QUESTIONS: dict[str, Question] = {
    "agents": lambda session: ask.agents(session, WINDOW),
    "agent_versions": lambda session: ask.agent_versions(session, WINDOW, "agent-a"),
    "alerts": lambda session: ask.alerts(session, WINDOW),
    "calibration": lambda session: ask.calibration(session, WINDOW),
    "confidence": lambda session: ask.confidence(session, WINDOW),
    "errors": lambda session: ask.errors(session, WINDOW, with_messages=True),
    "feedback": lambda session: ask.feedback(session, WINDOW, with_details=True),
    "handoffs": lambda session: ask.handoffs(session, WINDOW),
    "repeated_requests": lambda session: ask.repeated_requests(session, WINDOW),
    "routing": lambda session: ask.routing(session, WINDOW, timedelta(days=30)),
    "routing_summary": lambda session: ask.routing_summary(session, WINDOW),
    "session_traces": lambda session: ask.session_traces(session, WORKFLOW),
    "slowest": lambda session: ask.slowest(session, WINDOW),
    "trace": lambda session: ask.trace(session, WORKFLOW, with_context=True),
    "workflows": lambda session: ask.workflows(session, WINDOW),
    "by capabilities": lambda session: find_agents_by_capabilities(session, ["reading"]),
    "by triggers": lambda session: find_agents_by_triggers(session, ["read"]),
    "an object": lambda session: session.scalars(select(AgentTransformationEvent)),
    "former ids": lambda session: session.execute(
        text(f'SELECT * FROM "agent ""obs"""."{EVENTS}_original_ids"')
    ),
}
COMMANDS = (
    "status",
    f"trace {WORKFLOW}",
    "workflows",
    "agents",
    "agents list",
    "routing",
    "calibration",
    "handoffs",
    "db current",
)
FORBIDDEN = [
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in ("agent_definitions", EVENTS, METRICS)),
    "UPDATE agent_definitions SET is_active = false",
    f"UPDATE {EVENTS} SET success = false",
    f"SELECT * FROM {METRICS} FOR UPDATE",
    *(f"DELETE FROM {table}" for table in ("agent_definitions", EVENTS, METRICS)),
    *(f"TRUNCATE {table}" for table in ("agent_definitions", EVENTS, METRICS)),
    "DELETE FROM agentobs_execution_rollups",
    "DELETE FROM agentobs_partitions",
    "UPDATE agentobs_alembic_version SET version_num = '0001'",
    *(f"SELECT * FROM {table}_default" for table in (EVENTS, METRICS)),
    "SELECT * FROM agentobs_changed_rows",
    "SELECT setval('agentobs_rollup_watermark', 1)",
    f"DROP TABLE {EVENTS}",
    "CREATE TABLE mine (id uuid)",
    "CREATE TEMPORARY TABLE mine (id uuid)",
]


@pytest.fixture(scope="module")
def database(agentobs_server: URL) -> Iterator[Granted]:
    """Yield a database with rows of long ago that are folded, and rows of now that are not."""
    with granted(agentobs_server) as found:
        run(fill(found.writer, found.owner))
        yield found


async def fill(writer: DatabaseSettings, owner: DatabaseSettings) -> None:
    async with Database(writer) as database, database.begin() as session:
        session.add(AgentDefinition(agent_name="agent-a", agent_type="x", yaml_config={}))
        for instant in (middle_of(JANUARY), NOW - timedelta(minutes=1)):
            session.add_all([event_of(instant), decision_of(instant)])
    await maintained(owner)


def event_of(instant: datetime) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        id=uuid7_at(instant),
        started_at=instant,
        event_type="transformation_complete",
        correlation_id=WORKFLOW,
        target_agent="agent-a",
        total_execution_duration_ms=10,
        success=True,
    )


def decision_of(instant: datetime) -> RouterPerformanceMetric:
    return RouterPerformanceMetric(
        id=uuid7_at(instant),
        measured_at=instant,
        metric_type="routing_decision",
        correlation_id=WORKFLOW,
        selected_agent="agent-a",
        total_routing_time_us=900,
    )


def test_every_question_is_asked_here() -> None:
    # Those that write are asked by a writer, and that of the extra [weights] reads the same rows.
    writing = {"refresh_agent_scores", "update_agent_scores", "suggest_weights"}
    questions = {name for name in ask.__all__ if name.islower()} - writing
    assert {name for name in questions if not name.startswith("select_")} <= QUESTIONS.keys()


@pytest.mark.parametrize("name", QUESTIONS)
async def test_it_asks(database: Granted, name: str) -> None:
    async with Database(database.reader) as found, found.session() as session:
        await QUESTIONS[name](session)


async def test_its_answers_are_those_of_the_owner(database: Granted) -> None:
    answers = []
    for settings in (database.reader, database.owner):
        async with Database(settings) as found, found.session() as session:
            answers.append(
                (await ask.agents(session, WINDOW), await ask.routing_summary(session, WINDOW))
            )

    assert answers[0] == answers[1]
    assert [each.executions for each in answers[0][0]] == [2]


async def test_it_is_healthy(database: Granted) -> None:
    async with Database(database.reader) as found:
        health = await found.health()

    assert (health.ok, health.reason) == (True, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_works_for_it(database: Granted, command: str) -> None:
    done = agentobs(*command.split(), settings=database.reader, AGENTOBS_SCHEMA=SCHEMA)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_alerts_fire_for_it(database: Granted) -> None:
    done = agentobs("alerts", settings=database.reader, AGENTOBS_SCHEMA=SCHEMA)

    # Rows of January 2024 are older than the retention that is meant.
    assert (done.returncode, done.stderr) == (1, "")
    assert "expired_rows_age_days" in done.stdout


def test_the_report_is_made_by_it(database: Granted, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = agentobs(
        "report", "--output", str(page), settings=database.reader, AGENTOBS_SCHEMA=SCHEMA
    )

    assert done.returncode == 0, done.stderr
    assert "agent-a" in page.read_text()


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_it_may_not(database: Granted, statement: str) -> None:
    async with connect(database.reader) as connection:
        await connection.execute(
            text("SELECT set_config('search_path', quote_ident(:name), false)"), {"name": SCHEMA}
        )
        with pytest.raises(DatabaseError) as caught:
            await connection.exec_driver_sql(statement)

    assert caught.value.sqlstate == "42501"


@pytest.mark.parametrize("command", ["maintain --apply", "db downgrade base", "agents sync {}"])
def test_a_command_that_writes_is_one_clear_line(
    database: Granted, command: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("name: agent-b\nversion: '1.0.0'\nagent_type: x\n")
    arguments = command.format(tmp_path).split()

    done = agentobs(*arguments, settings=database.reader, AGENTOBS_SCHEMA=SCHEMA)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "permission denied" in done.stderr or "must be owner" in done.stderr, done.stderr
