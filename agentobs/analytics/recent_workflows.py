"""Which workflows there were: the newest of a window, those that failed, those that still run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from sqlalchemy import ARRAY, Text, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from agentobs.analytics.results import Result, Table, fetch
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import AgentTransformationEvent

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

    Kind = Literal["failed", "running"]

_Event = AgentTransformationEvent


class Workflow(Result):
    """A workflow by its runs within the window: `began_at` is the first one's, as is the agent.

    `failed` are runs without success, `running` those without an outcome.
    """

    correlation_id: UUID
    began_at: datetime
    first_agent: str
    runs: int
    failed: int
    running: int


def select_workflows(window: Window, only: Kind | None = None, *, limit: int = 20) -> Select[Any]:
    """Select the workflows whose last run began last; `only` those with a failed or running run."""
    _refuse_others(only, limit)
    counts = {
        "failed": func.count().filter(_Event.success.is_(False)),
        "running": func.count().filter(_Event.success.is_(None)),
    }
    agents = func.array_agg(aggregate_order_by(_Event.target_agent, _Event.id), type_=ARRAY(Text))
    found = (
        select(
            _Event.correlation_id,
            func.min(_Event.started_at).label("began_at"),
            agents[1].label("first_agent"),
            func.count().label("runs"),
            *(count.label(name) for name, count in counts.items()),
        )
        .where(require_window(window).holds(_Event))
        .group_by(_Event.correlation_id)
        .order_by(func.max(_Event.started_at).desc(), _Event.correlation_id)
        .limit(limit)
    )
    return found if only is None else found.having(counts[only] > 0)


async def workflows(
    session: AsyncSession, window: Window, only: Kind | None = None, *, limit: int = 20
) -> Table[Workflow]:
    """Return the newest workflows of a window, by the last of their runs.

    `only` those with a run that failed, or that has no outcome yet. Raises InvalidValueError for
    another word, and for a limit below 1.
    """
    return await fetch(session, select_workflows(window, only, limit=limit), Workflow)


def _refuse_others(only: Kind | None, limit: int) -> None:
    if only not in {None, "failed", "running"}:
        raise InvalidValueError("only", 'must be "failed" or "running", or left out')
    if limit < 1:
        raise InvalidValueError("limit", "must be 1 or more")
