"""The scores of agent definitions, brought up to date from what their runs came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import CTE, Integer, and_, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from agentobs.analytics.results import Result, Table, execute, table_of
from agentobs.analytics.window import require_window
from agentobs.models import AgentDefinition, AgentTransformationEvent
from agentobs.versions import version_order

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Subquery
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.dml import ReturningUpdate

    from agentobs.analytics.window import Window

_Event, _Definition = AgentTransformationEvent, AgentDefinition
_SCORES = ("success_rate", "quality_score", "avg_execution_time_ms")
_PLACES = 4


class RefreshedScores(Result):
    """A definition whose scores have changed, as they are now."""

    agent_definition_id: UUID
    agent: str
    version: str
    success_rate: float | None
    quality_score: float | None
    avg_execution_time_ms: int | None


def update_agent_scores(window: Window, *, by_name: bool = False) -> ReturningUpdate[Any]:
    """Build the statement of `refresh_agent_scores`; it returns the definitions that it changes."""
    changed = _changed(window, by_name=by_name)
    return (
        update(_Definition)
        .where(_Definition.id == changed.c.id)
        .values({name: changed.c[name] for name in _SCORES})
        .returning(
            _Definition.id.label("agent_definition_id"),
            _Definition.agent_name.label("agent"),
            _Definition.agent_version.label("version"),
            *(getattr(_Definition, name) for name in _SCORES),
        )
    )


async def refresh_agent_scores(
    session: AsyncSession, window: Window, *, by_name: bool = False
) -> Table[RefreshedScores]:
    """Set the scores of definitions to those of their finished runs in the window.

    Returns those that changed, by name and version; no other row is written. A definition without
    finished runs keeps what it has, and so does a score that none of these runs knows. Runs are a
    definition's by their `agent_definition_id`; with `by_name`, those without one count for the
    newest active definition of the agent, which need not be the one that ran.

    The caller commits. Rows are locked in the order of their ids, and inserts of events do not wait
    for them. Definitions that the session has loaded before are not brought up to date.
    """
    statement = update_agent_scores(window, by_name=by_name)
    found = await execute(session, statement.execution_options(synchronize_session=False))
    rows = [RefreshedScores.model_validate(dict(row)) for row in found.mappings()]
    rows.sort(key=lambda row: (row.agent, version_order(row.version)))
    return table_of(RefreshedScores, rows)


def _changed(window: Window, *, by_name: bool) -> CTE:
    """Select the definitions whose scores differ, and lock them in one order for all callers."""
    found = _found(window, by_name=by_name)
    new = {name: func.coalesce(found.c[name], getattr(_Definition, name)) for name in _SCORES}
    differs = or_(*(getattr(_Definition, name).is_distinct_from(new[name]) for name in _SCORES))
    return (
        select(_Definition.id, *(value.label(name) for name, value in new.items()))
        .join(found, found.c.id == _Definition.id)
        .where(differs)
        .order_by(_Definition.id)
        # Not FOR UPDATE, for which the foreign key of each new event would wait.
        .with_for_update(of=_Definition, key_share=True)
        .cte("changed")
    )


def _found(window: Window, *, by_name: bool) -> CTE:
    """Select what the finished runs of each definition came to, in the places of its columns."""
    source: Any = _Event
    owner: ColumnElement[Any] = _Event.agent_definition_id.expression
    if by_name:
        active = _newest_active()
        belongs = and_(owner.is_(None), active.c.agent_name == _Event.target_agent)
        source = _Event.__table__.outerjoin(active, belongs)
        owner = func.coalesce(owner, active.c.id)
    duration = func.avg(_Event.total_execution_duration_ms)
    return (
        select(
            owner.label("id"),
            func.round(func.avg(cast(_Event.success, Integer)), _PLACES).label("success_rate"),
            func.round(func.avg(_Event.quality_score), _PLACES).label("quality_score"),
            cast(func.round(duration), Integer).label("avg_execution_time_ms"),
        )
        .select_from(source)
        .where(
            require_window(window).holds(_Event), _Event.success.is_not(None), owner.is_not(None)
        )
        .group_by(owner)
        .cte("found")
    )


def _newest_active() -> Subquery:
    newest_first = _Definition.created_at.desc(), _Definition.id.desc()
    return (
        select(_Definition.agent_name, _Definition.id)
        .where(_Definition.is_active)
        .ext(distinct_on(_Definition.agent_name))
        .order_by(_Definition.agent_name, *newest_first)
        .subquery("active")
    )
