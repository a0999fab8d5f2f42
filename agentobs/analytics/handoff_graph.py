"""Who hands work to whom, where it goes in circles, and where it ends badly.

A run is a hand-off from its source to its target. A source of None is the entry into a workflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, and_, cast, false, func, or_, select

from agentobs.analytics.aggregates import mean, rate
from agentobs.analytics.results import Result, Table, execute, fetch, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import AgentTransformationEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window


class Handoff(Result):
    """An edge of the graph, and how the runs it led to did.

    `succeeded` and `failed` count the runs that ended, the rest goes on; `success_rate` is the
    share of those that succeeded, `mean_ms` the mean of `total_execution_duration_ms`.
    """

    source_agent: str | None
    target_agent: str
    count: int
    succeeded: int
    failed: int
    success_rate: float | None
    mean_ms: float | None


class PingPong(Result):
    """Two agents that hand work to each other within one workflow, the lesser name first.

    `workflows` counts those in which both did; `forth`, from the first to the second, and `back`
    are hand-offs of these, and `round_trips` the lesser of both, counted in each workflow.
    """

    first_agent: str
    second_agent: str
    workflows: int
    forth: int
    back: int
    round_trips: int


class DeadEnd(Result):
    """An agent with whose run workflows ended badly.

    `failed` and `unended` count the workflows whose last step was a run of it that failed, or has
    no outcome: it goes on, or its end was lost. `last_steps` counts all that it was the last step
    of, `runs` all its runs, `dead_end_rate` the share of the two in these.
    """

    agent: str
    runs: int
    last_steps: int
    failed: int
    unended: int
    dead_end_rate: float


class Handoffs(Result):
    """The graph of hand-offs; each table has its most frequent first, `limit` of them at most."""

    edges: Table[Handoff]
    self_transformations: Table[Handoff]
    ping_pongs: Table[PingPong]
    dead_ends: Table[DeadEnd]


def select_handoffs(window: Window, *, limit: int = 100) -> Select[Any]:
    """Return the edges by their count, with their `place` in that order and whether it `is_self`.

    Those of an agent to itself come also where they lie behind the limit, as many again.
    """
    edge = _edges(window).subquery().c
    order = (edge.count.desc(), edge.source_agent.nulls_first(), edge.target_agent)
    is_self = func.coalesce(edge.source_agent == edge.target_agent, false())
    placed = select(
        *edge,
        is_self.label("is_self"),
        func.row_number().over(order_by=order).label("place"),
        func.row_number().over(partition_by=is_self, order_by=order).label("place_of_its_kind"),
    ).subquery()
    columns, bound = placed.c, _checked(limit)
    of_self = and_(columns.is_self, columns.place_of_its_kind <= bound)
    return select(placed).where(or_(columns.place <= bound, of_self)).order_by(columns.place)


def select_ping_pongs(window: Window, *, limit: int = 100) -> Select[Any]:
    """Return the pairs that hand work to each other, by their round trips."""
    pairs = _pairs(window).subquery()
    columns = pairs.c
    round_trips = _sum(func.least(columns.forth, columns.back))
    statement = select(
        columns.first_agent,
        columns.second_agent,
        func.count().label("workflows"),
        _sum(columns.forth).label("forth"),
        _sum(columns.back).label("back"),
        round_trips.label("round_trips"),
    ).group_by(columns.first_agent, columns.second_agent)
    order = (round_trips.desc(), columns.first_agent, columns.second_agent)
    return statement.order_by(*order).limit(_checked(limit))


def select_dead_ends(window: Window, *, limit: int = 100) -> Select[Any]:
    """Return the agents that workflows ended badly with, by how many of these there are.

    The last step of a workflow is the run of it that began last within the window.
    """
    step = _steps(window).subquery().c
    failed = _count(step.is_last & step.success.is_(False))
    unended = _count(step.is_last & step.success.is_(None))
    bad = failed + unended
    statement = select(
        step.agent,
        func.count().label("runs"),
        _count(step.is_last).label("last_steps"),
        failed.label("failed"),
        unended.label("unended"),
        (cast(bad, Double) / func.count()).label("dead_end_rate"),
    ).group_by(step.agent)
    return statement.having(bad > 0).order_by(bad.desc(), step.agent).limit(_checked(limit))


async def handoffs(session: AsyncSession, window: Window, *, limit: int = 100) -> Handoffs:
    """Return who handed work to whom, and where that went wrong; each table has `limit` rows."""
    found = (await execute(session, select_handoffs(window, limit=limit))).mappings().all()
    edges = [row for row in found if row["place"] <= limit]
    of_self = [row for row in found if row["is_self"]]
    return Handoffs(
        edges=_table(edges),
        self_transformations=_table(of_self[:limit]),
        ping_pongs=await fetch(session, select_ping_pongs(window, limit=limit), PingPong),
        dead_ends=await fetch(session, select_dead_ends(window, limit=limit), DeadEnd),
    )


def _table(rows: Sequence[RowMapping]) -> Table[Handoff]:
    return table_of(Handoff, [Handoff.model_validate(dict(row)) for row in rows])


def _edges(window: Window) -> Select[Any]:
    event = AgentTransformationEvent
    edge: list[Any] = [event.source_agent, event.target_agent]
    statement = select(
        *edge,
        func.count().label("count"),
        _count(event.success.is_(True)).label("succeeded"),
        _count(event.success.is_(False)).label("failed"),
        rate(event.success).label("success_rate"),
        mean(event.total_execution_duration_ms).label("mean_ms"),
    )
    return statement.where(require_window(window).holds(event)).group_by(*edge)


def _pairs(window: Window) -> Select[Any]:
    """Return for each workflow the pairs that handed work both ways."""
    event = AgentTransformationEvent
    source, target = event.source_agent, event.target_agent
    first, second = func.least(source, target), func.greatest(source, target)
    forth, back = _count(source == first), _count(source == second)
    columns: list[Any] = [
        first.label("first_agent"),
        second.label("second_agent"),
        forth.label("forth"),
        back.label("back"),
    ]
    # A source of NULL differs from no target, and is left out.
    statement = select(*columns).where(require_window(window).holds(event), source != target)
    both = and_(forth > 0, back > 0)
    return statement.group_by(event.correlation_id, first, second).having(both)


def _steps(window: Window) -> Select[Any]:
    event = AgentTransformationEvent
    newest_first = func.row_number().over(
        partition_by=event.correlation_id, order_by=event.id.desc()
    )
    is_last = (newest_first == 1).label("is_last")
    columns: list[Any] = [event.target_agent.label("agent"), event.success, is_last]
    return select(*columns).where(require_window(window).holds(event))


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _sum(counts: ColumnElement[int]) -> ColumnElement[int]:
    # A sum of bigint is numeric.
    return cast(func.sum(counts), BigInteger)


def _checked(limit: int) -> int:
    if limit < 1:
        raise InvalidValueError("limit", "must be 1 or more")
    return limit
