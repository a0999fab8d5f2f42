"""How well agents and their versions do, and whether they do better than before."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select

from agentobs.analytics.aggregates import mean, percentile, rate
from agentobs.analytics.folded import count_of, percentile_sources, ratio, read_folded
from agentobs.analytics.results import Result, Table, read_rows, table_of
from agentobs.analytics.window import require_window
from agentobs.models import AgentDefinition, AgentTransformationEvent
from agentobs.rollups import EXECUTION, Shape, Span, merged
from agentobs.versions import version_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

_Event = AgentTransformationEvent
_AGENTS = Shape(EXECUTION, of_agents=True, has_steps=True)


class AgentPerformance(Result):
    """What an agent did in a window, and the differences from the window of that length before.

    `executions` are all runs, `finished` those with an outcome, `rated` those with a quality.
    Percentiles are durations that occurred, or within one per cent of one. A difference is None
    where either window lacks the number, that of the executions where the agent did not run before.
    """

    agent: str
    executions: int
    finished: int
    success_rate: float | None
    mean_duration_ms: float | None
    p50_duration_ms: int | None
    p95_duration_ms: int | None
    p99_duration_ms: int | None
    rated: int
    mean_quality: float | None
    executions_delta: int | None
    success_rate_delta: float | None
    p95_duration_delta_ms: int | None
    mean_quality_delta: float | None


class AgentVersionPerformance(AgentPerformance):
    """The same of one definition of an agent; both None for runs that name no definition."""

    agent_definition_id: UUID | None
    version: str | None


Kind = TypeVar("Kind", bound=AgentPerformance)


def select_agents(window: Window) -> Select[Any]:
    """Select the numbers of each agent, the most executions first, then by name (code points)."""
    return (
        select(_Event.target_agent.label("agent"), *_numbers())
        .where(require_window(window).holds(_Event))
        .group_by(_Event.target_agent)
        .order_by(func.count().desc(), _Event.target_agent.collate("C"))
    )


def select_agent_versions(window: Window, name: str) -> Select[Any]:
    """Select the numbers of each definition that ran as the agent, in no order."""
    definition = AgentDefinition
    return (
        select(
            _Event.target_agent.label("agent"),
            _Event.agent_definition_id,
            definition.agent_version.label("version"),
            *_numbers(),
        )
        .outerjoin(definition, definition.id == _Event.agent_definition_id)
        .where(require_window(window).holds(_Event), _Event.target_agent == name)
        .group_by(_Event.target_agent, _Event.agent_definition_id, definition.agent_version)
    )


async def agents(session: AsyncSession, window: Window) -> Table[AgentPerformance]:
    """Return what each agent did, the most executions first, then by name (code points).

    From the rollups where hours are folded: percentiles are within one per cent then.
    """
    before = require_window(window).before
    *then, now = await numbers_of_agents(session, *([before] if before else []), window)
    return table_of(AgentPerformance, _compared(AgentPerformance, "agent", now, *then))


async def agent_versions(
    session: AsyncSession, window: Window, name: str
) -> Table[AgentVersionPerformance]:
    """Return what each version of an agent did, in the order of versions, None last."""
    now = await read_rows(session, select_agent_versions(window, name))
    before = window.before
    then = await read_rows(session, select_agent_versions(before, name)) if before else ()
    found = _compared(AgentVersionPerformance, "agent_definition_id", now, then)
    return table_of(AgentVersionPerformance, sorted(found, key=_place))


def _place(row: AgentVersionPerformance) -> tuple[Any, ...]:
    # Definitions of other names may have run as this agent, with the same version.
    known = row.version is not None
    return not known, version_order(row.version or ""), str(row.agent_definition_id)


def _numbers() -> list[ColumnElement[Any]]:
    duration = _Event.total_execution_duration_ms
    return [
        func.count().label("executions"),
        func.count(_Event.success).label("finished"),
        rate(_Event.success).label("success_rate"),
        mean(duration).label("mean_duration_ms"),
        percentile(duration, 0.5).label("p50_duration_ms"),
        percentile(duration, 0.95).label("p95_duration_ms"),
        percentile(duration, 0.99).label("p99_duration_ms"),
        func.count(_Event.quality_score).label("rated"),
        mean(_Event.quality_score).label("mean_quality"),
    ]


async def numbers_of_agents(session: AsyncSession, *windows: Window) -> list[list[dict[str, Any]]]:
    """Return the numbers of each agent in windows of which each begins where the last one ends.

    From the rollups they come in one statement, as steps of one span.
    """
    span = Span(windows[0].since, windows[-1].until, [window.since for window in windows])
    found = await read_folded(session, _AGENTS, span, _select_folded_agents())
    if found is None:
        return [await read_rows(session, select_agents(window)) for window in windows]
    steps = range(1, len(windows) + 1)
    return [[row for row in found if row["step"] == step] for step in steps]


@cache
def _select_folded_agents() -> Select[Any]:
    agents = merged(_AGENTS)
    executions, duration = agents.c.executions, "total_execution_duration_ms"
    return select(
        agents.c.step,
        agents.c.agent,
        count_of(executions).label("executions"),
        count_of(agents.c.finished).label("finished"),
        ratio(agents.c.succeeded, agents.c.finished).label("success_rate"),
        ratio(agents.c[f"{duration}_sum"], agents.c[f"{duration}_rows"]).label("mean_duration_ms"),
        count_of(agents.c.rated).label("rated"),
        ratio(agents.c.quality_score_sum, agents.c.rated).label("mean_quality"),
        *percentile_sources(_AGENTS, agents),
    ).order_by(executions.desc(), agents.c.agent.collate("C"))


def _compared(
    kind: type[Kind],
    key: str,
    now: Sequence[Mapping[Any, Any]],
    then: Sequence[Mapping[Any, Any]] = (),
) -> list[Kind]:
    known = {row[key]: row for row in then}
    return [kind.model_validate({**row, **_deltas(row, known.get(row[key], {}))}) for row in now]


def _deltas(now: Mapping[Any, Any], then: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "executions_delta": _delta(now, then, "executions"),
        "success_rate_delta": _delta(now, then, "success_rate"),
        "p95_duration_delta_ms": _delta(now, then, "p95_duration_ms"),
        "mean_quality_delta": _delta(now, then, "mean_quality"),
    }


def _delta(now: Mapping[Any, Any], then: Mapping[Any, Any], name: str) -> Any:
    new, old = now.get(name), then.get(name)
    return None if new is None or old is None else new - old
