"""A month of a system of agents with names that no one should trust."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert

from agentobs import AgentTransformationEvent, EventType, MetricType, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
WINDOW = Window.last(timedelta(days=30), until=NOON)
HOSTILE = (
    "</script><script>window.hacked=1</script><!--<img src=x onerror=window.hacked=2>"
    "<a href='javascript:window.hacked=3'>\"b\"</a><br>&amp;\u2028%{y}"
)
# Cut alike; like a date; like a colour of the page; turned around; of two lines; nothing.
ODD_NAMES = (
    HOSTILE,
    "agent-with-a-name-that-is-longer-than-any-label-can-be-1",
    "agent-with-a-name-that-is-longer-than-any-label-can-be-2",
    "2024-01-01",
    "--series-1",
    "agent-\u202egnp.exe",
    "agent\nof two lines",
    "",
)
NAMES = ("agent-debug", "agent-api", "agent-docs", "agent-tests", *ODD_NAMES)
WORKFLOWS = 250
ERRORS = (None, "TimeoutError", "<b>ValueError</b>")


def month_of_rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return events and decisions: the same ones each time."""
    chance = random.Random(7)  # noqa: S311
    events: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    for number in range(WORKFLOWS):
        began = WINDOW.since + WINDOW.length * number / WORKFLOWS
        workflow = UUID(int=chance.getrandbits(128), version=4)
        root = event(began, workflow, "agent-coordinator", took_ms=4000)
        events.append(root)
        for step in range(chance.randint(1, 4)):
            at = began + timedelta(milliseconds=900 * step)
            agent = chance.choices(NAMES, weights=range(len(NAMES) + 3, 3, -1))[0]
            decisions.append(decision(at, workflow, agent, chance))
            success = chance.choices([True, False, None], weights=[88, 9, 3])[0]
            child = event(
                at,
                workflow,
                agent,
                took_ms=chance.randint(50, 800),
                success=success,
                source_agent="agent-coordinator",
                parent_event_id=root["id"],
                error_type=chance.choice(ERRORS) if success is False else None,
            )
            events.append(child)
            if step == 1:
                events.append(event(at, workflow, agent, source_agent=agent, took_ms=20))
    return events, decisions


def event(
    began: datetime,
    workflow: UUID,
    agent: str,
    *,
    took_ms: int = 100,
    success: bool | None = True,
    **values: Any,
) -> dict[str, Any]:
    ended = None if success is None else began + timedelta(milliseconds=took_ms)
    row = {
        "id": uuid7_at(began),
        "event_type": EventType.FAILED if success is False else EventType.COMPLETE,
        "correlation_id": workflow,
        "source_agent": None,
        "target_agent": agent,
        "parent_event_id": None,
        "started_at": began,
        "completed_at": ended,
        "total_execution_duration_ms": None if ended is None else took_ms,
        "success": success,
        "error_type": None,
        "error_message": "secret-message",
        "user_request": "secret-request",
        "transformation_reason": "secret-reason",
        "context_snapshot": {"secret": "secret-context"},
        "quality_score": 0.8,
    }
    return row | values


def decision(
    at: datetime, workflow: UUID | None, agent: str | None, chance: random.Random
) -> dict[str, Any]:
    parts = [round(chance.betavariate(6, 2), 4) for _ in range(3)]
    score = round(0.4 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2] + 0.1, 4)
    success = chance.random() < score * 0.9
    is_known = chance.random() < 0.8
    total = int(chance.lognormvariate(10.2, 0.7))
    return {
        "id": uuid7_at(at),
        "metric_type": MetricType.ROUTING_DECISION,
        "correlation_id": workflow,
        "selected_agent": agent,
        "selection_strategy": chance.choice(["fuzzy", "<i>capability</i>"]),
        "confidence_score": score,
        "trigger_confidence": parts[0],
        "context_confidence": parts[1],
        "capability_confidence": parts[2],
        "historical_confidence": 1,
        "total_routing_time_us": total,
        "cache_lookup_us": total // 10,
        "trigger_matching_us": total // 3,
        "confidence_scoring_us": total // 4,
        "cache_hit": chance.random() < 0.55,
        "selection_validated": is_known,
        "actual_success": success if is_known else None,
        "actual_quality_score": round(score * 0.9, 4) if is_known else None,
        "measured_at": at,
    }


async def add_rows(
    session: AsyncSession, events: Sequence[dict[str, Any]], decisions: Sequence[dict[str, Any]]
) -> None:
    if events:
        await session.execute(insert(AgentTransformationEvent), events)
    if decisions:
        await session.execute(insert(RouterPerformanceMetric), decisions)
