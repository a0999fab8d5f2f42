"""What a report is made of, asked of the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Generic, TypeVar

from agentobs.analytics import (
    AgentPerformance,
    Alert,
    Calibration,
    ComponentConfidence,
    Errors,
    GroupCalibration,
    Handoffs,
    RoutingBucket,
    RoutingSummary,
    SlowDecision,
    Trace,
    Window,
    agents,
    alerts,
    calibration,
    confidence,
    errors,
    handoffs,
    routing,
    routing_summary,
    slowest,
    trace,
)
from agentobs.report.questions import Completeness, activity, completeness, failed_workflows
from agentobs.report.steps import step_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

Item = TypeVar("Item")

MOST_AGENTS = 30
MOST_ALERTS = 20
MOST_EDGES = 40
MOST_ERROR_TYPES = 10
MOST_TRACES = 10
MOST_RUNS_READ = 2_000
"""Of one workflow so many runs are read, and as many decisions."""

# Where a workflow that failed, or was decided on, at the window's beginning may have begun.
_BEFORE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Top(Generic[Item]):
    """The first of a list, and how many of it were left out; None where that is not known."""

    items: tuple[Item, ...]
    left_out: int | None = 0

    @classmethod
    def of(cls, items: Sequence[Item], most: int) -> Top[Item]:
        """Return the first `most`, all of the rest being known."""
        return cls(tuple(items[:most]), max(len(items) - most, 0))


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent, and its runs in each step of the report's series."""

    agent: AgentPerformance
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A slow decision, and the workflow it belongs to, where that is known."""

    decision: SlowDecision
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows: answers of one window, bounded in number."""

    window: Window
    step: timedelta
    made_at: datetime
    version: str
    alerts: Top[Alert]
    checks: int
    checks_without_data: int
    completeness: Completeness
    summary: RoutingSummary
    routing: tuple[RoutingBucket, ...]
    agents: Top[AgentRow]
    calibration: Calibration
    calibrated_agents: Top[GroupCalibration]
    confidence: Top[tuple[ComponentConfidence, ...]]
    handoffs: Handoffs
    more_handoffs: bool
    errors: Errors
    slowest: tuple[Decision, ...]
    failed: Top[Trace]


async def gather(
    session: AsyncSession, window: Window, *, made_at: datetime | None = None
) -> ReportData:
    """Ask what a report of the window shows; the answer to each question is bounded."""
    series = await routing(session, window, step_of(window))
    checks = await alerts(session, window)
    by_agent = await calibration(session, window, by="agent")
    graph = await handoffs(session, window, limit=MOST_EDGES + 1)
    return ReportData(
        window=window,
        step=step_of(window),
        made_at=made_at or datetime.now(UTC),
        version=version("agentobs-orm"),
        alerts=Top.of([each for each in checks if each.is_firing], MOST_ALERTS),
        checks=len(checks),
        checks_without_data=sum(not each.has_enough_data for each in checks),
        completeness=await completeness(session, window),
        summary=await routing_summary(session, window),
        routing=tuple(series),
        agents=await _agents(session, window, tuple(series)),
        calibration=by_agent,
        calibrated_agents=Top.of(tuple(by_agent.groups), MOST_AGENTS),
        confidence=_by_agent(await confidence(session, window)),
        handoffs=graph,
        more_handoffs=len(graph.edges) > MOST_EDGES,
        errors=await errors(session, window, limit=MOST_ERROR_TYPES),
        slowest=await _slowest(session, window),
        failed=await _failed(session, window),
    )


async def _agents(
    session: AsyncSession, window: Window, series: Sequence[RoutingBucket]
) -> Top[AgentRow]:
    shown = Top.of(tuple(await agents(session, window)), MOST_AGENTS)
    names = [each.agent for each in shown.items]
    begins = [each.begins_at for each in series]
    found = await activity(session, window, step_of(window), names, begins[0])
    runs = {(each.agent, each.begins_at): each.runs for each in found}
    rows = [
        AgentRow(each, tuple(runs.get((each.agent, begin), 0) for begin in begins))
        for each in shown.items
    ]
    return Top(tuple(rows), shown.left_out)


def _by_agent(rows: Iterable[ComponentConfidence]) -> Top[tuple[ComponentConfidence, ...]]:
    """Return the components of the agents with the most rows."""
    found: dict[str | None, list[ComponentConfidence]] = {}
    for row in rows:
        found.setdefault(row.agent, []).append(row)
    groups = [tuple(group) for group in found.values()]
    groups.sort(key=lambda group: -max(each.rows for each in group))
    return Top.of(groups, MOST_AGENTS)


async def _slowest(session: AsyncSession, window: Window) -> tuple[Decision, ...]:
    found = await slowest(session, window, MOST_TRACES)
    keys = {each.correlation_id for each in found if each.correlation_id is not None}
    traces = await _traces(session, window, keys)
    # A decision alone is no workflow to look into.
    return tuple(
        Decision(each, None if each.correlation_id is None else traces.get(each.correlation_id))
        for each in found
    )


async def _failed(session: AsyncSession, window: Window) -> Top[Trace]:
    found = await failed_workflows(session, window, limit=MOST_TRACES)
    traces = await _traces(session, window, [each.correlation_id for each in found])
    left_out = found[0].of_all - len(found) if found else 0
    return Top(tuple(traces.values()), left_out)


async def _traces(
    session: AsyncSession, window: Window, keys: Iterable[UUID]
) -> Mapping[UUID, Trace]:
    # Without request, context and message: a report is passed on.
    around = Window.last(window.length + _BEFORE, until=window.until)
    found = [await trace(session, key, window=around, most_events=MOST_RUNS_READ) for key in keys]
    return {each.correlation_id: each for each in found if each.nodes}
