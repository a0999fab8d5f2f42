"""What runs failed of: their errors by type."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import BigInteger, Double, Text, Uuid, cast, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from agentobs.analytics.results import Result, Table, read_rows, table_of
from agentobs.analytics.window import require_window
from agentobs.errors import InvalidValueError
from agentobs.models import AgentTransformationEvent

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.window import Window

TOP_AGENTS = 5
"""How many agents an error type names at most."""


class AgentHit(Result):
    """How many of the runs that failed were an agent's."""

    target_agent: str
    count: int


class ErrorOfType(Result):
    """The failed runs of one error type, None being those without a type.

    `share` is of all failed runs of the window. `agents_hit` counts the agents whose runs they
    were, `top_agents` names those hit most. The example is the newest of them; its message is None
    unless it was asked for by `with_messages`, and no repr shows it.
    """

    error_type: str | None
    count: int
    share: float
    agents_hit: int
    top_agents: Table[AgentHit]
    first_seen_at: datetime
    last_seen_at: datetime
    example_event_id: UUID
    example_correlation_id: UUID
    example_message: str | None = Field(default=None, repr=False)


class Errors(Result):
    """The errors of a window, the most frequent type first.

    `failed` counts the runs whose success is false, those of types behind the limit too.
    """

    failed: int
    error_types: int
    types: Table[ErrorOfType]


def select_errors(window: Window, *, limit: int = 20, with_messages: bool = False) -> Select[Any]:
    """Return the error types by their count; of agents two arrays, names and counts.

    Each row tells of all, too: how many `failed`, and how many `error_types` there are.
    """
    if limit < 1:
        raise InvalidValueError("limit", "must be 1 or more")
    event = AgentTransformationEvent
    types = _types(window, limit).subquery()
    message = [event.error_message.label("example_message")] if with_messages else []
    return (
        select(*types.c, event.correlation_id.label("example_correlation_id"), *message)
        .join(event, (event.id == types.c.example_event_id) & require_window(window).holds(event))
        .order_by(types.c.count.desc(), types.c.error_type.nulls_last())
    )


async def errors(
    session: AsyncSession, window: Window, *, limit: int = 20, with_messages: bool = False
) -> Errors:
    """Return the errors of failed runs by type, `limit` types at most.

    `with_messages` reads the message of each example, which may hold data of users.
    """
    statement = select_errors(window, limit=limit, with_messages=with_messages)
    rows = await read_rows(session, statement)
    return Errors(
        failed=rows[0]["failed"] if rows else 0,
        error_types=rows[0]["error_types"] if rows else 0,
        types=table_of(ErrorOfType, [_error(row) for row in rows]),
    )


def _error(row: dict[str, Any]) -> ErrorOfType:
    names_and_counts = zip(row["agents"], row["counts"], strict=True)
    agents = [AgentHit(target_agent=name, count=count) for name, count in names_and_counts]
    return ErrorOfType.model_validate(row | {"top_agents": table_of(AgentHit, agents)})


def _types(window: Window, limit: int) -> Select[Any]:
    of = _by_type_and_agent(window).subquery().c
    count = cast(func.sum(of.count), BigInteger)
    failed = func.sum(func.sum(of.count)).over()
    is_top = of.place <= TOP_AGENTS
    statement = select(
        of.error_type,
        count.label("count"),
        (cast(count, Double) / failed).label("share"),
        func.count().label("agents_hit"),
        func.array_agg(aggregate_order_by(of.target_agent, of.place))
        .filter(is_top)
        .label("agents"),
        func.array_agg(aggregate_order_by(of.count, of.place)).filter(is_top).label("counts"),
        func.min(of.first_seen_at).label("first_seen_at"),
        func.max(of.last_seen_at).label("last_seen_at"),
        cast(func.max(of.newest), Uuid).label("example_event_id"),
        cast(failed, BigInteger).label("failed"),
        func.count().over().label("error_types"),
    ).group_by(of.error_type)
    return statement.order_by(count.desc(), of.error_type.nulls_last()).limit(limit)


def _by_type_and_agent(window: Window) -> Select[Any]:
    event = AgentTransformationEvent
    count = func.count()
    place = func.row_number().over(
        partition_by=event.error_type, order_by=(count.desc(), event.target_agent)
    )
    # Before PostgreSQL 18 there is no max() of UUIDs; their texts have the same order.
    newest = func.max(cast(event.id, Text).collate("C"))
    statement = select(
        event.error_type,
        event.target_agent,
        count.label("count"),
        func.min(event.started_at).label("first_seen_at"),
        func.max(event.started_at).label("last_seen_at"),
        newest.label("newest"),
        place.label("place"),
    ).where(require_window(window).holds(event), event.success.is_(False))
    return statement.group_by(event.error_type, event.target_agent)
