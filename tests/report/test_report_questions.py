"""What a report asks beside the analytics, against plain Python over the same rows."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from report.report_rows import NOON, WINDOW, add_rows, event, month_of_rows
from sqlalchemy import event as listener
from sqlalchemy import text
from support.plans import explain, sent_by

from agentobs.analytics import Window, routing
from agentobs.report import figures, gather
from agentobs.report.gather import MOST_AGENTS, MOST_EDGES, MOST_TRACES
from agentobs.report.questions import (
    OVERDUE,
    activity,
    completeness,
    failed_workflows,
    select_decision_completeness,
    select_run_completeness,
)
from agentobs.report.steps import step_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MANY_EVENTS = """
    (id, started_at, event_type, correlation_id, source_agent, target_agent, success)
    SELECT agentobs_uuid7_at(instant), instant, 'x', gen_random_uuid(), 'agent-' || number + 1,
           'agent-' || number, number % 2 = 0
    FROM generate_series(1, 10000) number,
         LATERAL (SELECT CAST(:begin AS timestamptz) + number * interval '1 ms' AS instant) given
"""
MANY_DECISIONS = """
    (id, measured_at, metric_type, selected_agent, confidence_score, trigger_confidence,
     selection_validated, actual_success, total_routing_time_us)
    SELECT agentobs_uuid7_at(instant), instant, 'x', 'agent-' || number, 0.5, 0.5, true,
           number % 2 = 0, number
    FROM generate_series(1, 10000) number,
         LATERAL (SELECT CAST(:begin AS timestamptz) + number * interval '1 ms' AS instant) given
"""


async def test_completeness_counts_what_the_rows_lack(session: AsyncSession) -> None:
    events, decisions = month_of_rows()
    decisions[3]["total_routing_time_us"] = decisions[4]["correlation_id"] = None
    events[0]["total_execution_duration_ms"] = events[0]["quality_score"] = None
    late = event(WINDOW.until - OVERDUE / 2, UUID(int=1), "agent-late", success=None)
    await add_rows(session, [*events, late], decisions)
    found = await completeness(session, WINDOW)

    unended = [row for row in events if row["success"] is None]
    assert found.runs == len(events) + 1
    assert found.unended == len(unended) + 1
    assert found.overdue == len(unended)
    assert (found.untimed, found.unrated) == (1, 1)
    assert found.newest_run_at == late["started_at"]
    assert found.decisions == len(decisions)
    assert found.unvalidated == sum(not row["selection_validated"] for row in decisions)
    assert (found.untimed_decisions, found.unlinked) == (1, 1)
    assert found.newest_decision_at == max(row["measured_at"] for row in decisions)


async def test_of_nothing_completeness_knows_no_instant(session: AsyncSession) -> None:
    found = await completeness(session, WINDOW)
    assert (found.runs, found.decisions, found.newest_run_at) == (0, 0, None)


async def test_activity_counts_the_runs_of_each_step_of_the_series(session: AsyncSession) -> None:
    events, decisions = month_of_rows()
    await add_rows(session, events, decisions)
    names = ["agent-debug", "", "2024-01-01"]
    begins = [each.begins_at for each in await routing(session, WINDOW, DAY)]
    found = await activity(session, WINDOW, DAY, names, begins[0])

    expected = Counter(
        (row["target_agent"], row["started_at"].replace(hour=0, minute=0, second=0, microsecond=0))
        for row in events
        if row["target_agent"] in names
    )
    assert {(row.agent, row.begins_at): row.runs for row in found} == expected
    assert {row.begins_at for row in found} <= set(begins)


async def test_failed_workflows_come_newest_failure_first_with_how_many_there_are(
    session: AsyncSession,
) -> None:
    events, _ = month_of_rows()
    await add_rows(session, events, [])
    found = await failed_workflows(session, WINDOW, limit=3)

    failed = [row for row in events if row["success"] is False]
    newest = {row["correlation_id"]: row["id"] for row in sorted(failed, key=lambda r: r["id"])}
    expected = sorted(newest, key=lambda key: newest[key], reverse=True)[:3]
    assert [row.correlation_id for row in found] == expected
    counts = Counter(row["correlation_id"] for row in failed)
    assert [row.failed for row in found] == [counts[key] for key in expected]
    assert {row.of_all for row in found} == {len(newest)}


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (timedelta(minutes=1), timedelta(minutes=1)),
        (HOUR, timedelta(minutes=2)),
        (DAY, timedelta(minutes=30)),
        (7 * DAY, timedelta(hours=6)),
        (30 * DAY, DAY),
        (365 * DAY, timedelta(weeks=2)),
        (7_000 * DAY, timedelta(weeks=21)),
    ],
)
async def test_a_step_makes_a_series_that_can_be_read(
    session: AsyncSession, length: timedelta, step: timedelta
) -> None:
    window = Window.last(length, until=NOON)
    assert step_of(window) == step
    assert 1 <= len(await routing(session, window, step)) <= 50


async def test_a_report_of_a_window_before_any_row_is_gathered(session: AsyncSession) -> None:
    found = await gather(session, Window.last(DAY, until=NOON))
    assert (found.agents.items, found.slowest, found.failed.items) == ((), (), ())
    assert found.completeness.runs == 0


async def test_ten_thousand_agents_and_edges_are_bounded_and_what_is_left_out_is_told(
    session: AsyncSession,
) -> None:
    begin = {"begin": WINDOW.since + DAY}
    await session.execute(text(f"INSERT INTO agent_transformation_events {MANY_EVENTS}"), begin)
    await session.execute(text(f"INSERT INTO router_performance_metrics {MANY_DECISIONS}"), begin)
    statements: list[str] = []
    connection = (await session.connection()).sync_connection
    listener.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
    found = await gather(session, WINDOW)

    assert (len(found.agents.items), found.agents.left_out) == (MOST_AGENTS, 9_970)
    assert (len(found.confidence.items), found.confidence.left_out) == (MOST_AGENTS, 9_970)
    assert len(found.calibrated_agents.items) == MOST_AGENTS
    assert len(found.handoffs.edges) == MOST_EDGES + 1
    assert found.more_handoffs
    assert (len(found.failed.items), found.failed.left_out) == (MOST_TRACES, 4_990)
    assert len(statements) < 50
    assert len(json.dumps(figures(found))) < 200_000


@pytest.mark.parametrize(
    "question",
    [
        lambda session, window: session.execute(select_run_completeness(window)),
        lambda session, window: session.execute(select_decision_completeness(window)),
        lambda session, window: activity(session, window, HOUR, ["agent-x"], window.since),
        failed_workflows,
    ],
    ids=["runs", "decisions", "activity", "failed_workflows"],
)
async def test_a_question_reads_the_months_of_its_window_alone(
    session: AsyncSession, question: Callable[[AsyncSession, Window], Awaitable[object]]
) -> None:
    now = datetime.now(UTC)
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    window = Window(begin, begin + DAY)
    connection = await session.connection()
    statement, parameters = await sent_by(connection, lambda of: question(of, window))
    plan = await explain(connection, statement, parameters)

    assert plan.leaves == {f"y{now:%Y}m{now:%m}"}
