"""Write a workflow through the models and read it back: `make demo`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.tree import Tree
from sqlalchemy import Integer, cast, func, select

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    DatabaseSettings,
    RouterPerformanceMetric,
    create_engine,
    create_session_factory,
)
from agentobs.embedded.default import with_database
from examples.workflow import CORRELATION_ID, REQUEST, make_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

NEXT = """\
What to try next (nothing keeps running now):
  .venv/bin/agentobs agents list         the agents that the router may choose
  .venv/bin/agentobs server start        keep the server, for a service of yours
  .venv/bin/agentobs server psql         look at the tables yourself
  .venv/bin/alembic upgrade head --sql   the SQL that a DBA would run
  examples/workflow.py                   how the rows were made
  docs/README.md                         all pages
"""


async def write_workflow(session: AsyncSession) -> bool:
    """Write the rows of the workflow; return False where they are there already."""
    written = select(AgentTransformationEvent.id).where(
        AgentTransformationEvent.correlation_id == CORRELATION_ID
    )
    if (await session.scalars(written.limit(1))).first() is not None:
        return False
    agents = select(AgentDefinition.agent_name, AgentDefinition.id).where(AgentDefinition.is_active)
    definitions = {row.agent_name: row.id for row in await session.execute(agents)}
    session.add_all(make_rows(definitions, begins=datetime.now(UTC)))
    return True


async def read_tree(session: AsyncSession) -> Tree:
    """Read the events of the workflow in order, as the tree of who called whom."""
    events = await session.scalars(
        select(AgentTransformationEvent)
        .where(AgentTransformationEvent.correlation_id == CORRELATION_ID)
        .order_by(AgentTransformationEvent.started_at)
    )
    root = Tree(f"[bold]{REQUEST}[/]")
    _grow(root, events)
    return root


async def read_agents(session: AsyncSession) -> Table:
    """Read what each agent did: runs, success, duration, quality and the router's confidence."""
    event = AgentTransformationEvent
    duration = event.total_execution_duration_ms
    rows = await session.execute(
        select(
            event.target_agent,
            func.count(),
            cast(100 * func.count().filter(event.success.is_(True)) / func.count(), Integer),
            cast(func.avg(duration), Integer),
            cast(func.percentile_cont(0.95).within_group(duration), Integer),
            func.round(func.avg(event.quality_score), 2),
            func.round(func.avg(event.routing_confidence), 2),
        )
        .where(event.correlation_id == CORRELATION_ID)
        .group_by(event.target_agent)
        .order_by(event.target_agent)
    )
    return _table(rows)


async def count_decisions(session: AsyncSession) -> tuple[int, float]:
    """Count the routing decisions of the workflow; return their mean time in milliseconds too."""
    metric = RouterPerformanceMetric
    number, mean_us = (
        await session.execute(
            select(func.count(), func.avg(metric.total_routing_time_us)).where(
                metric.correlation_id == CORRELATION_ID
            )
        )
    ).one()
    return number, float(mean_us) / 1000


def _grow(root: Tree, events: Iterable[AgentTransformationEvent]) -> None:
    branches: dict[UUID | None, Tree] = {None: root}
    for event in events:
        mark = "[green]✓[/]" if event.success else "[red]✗[/]"
        seconds = (event.total_execution_duration_ms or 0) / 1000
        result = event.error_type or f"quality {event.quality_score:.2f}"
        branches[event.id] = branches[event.parent_event_id].add(
            f"{mark} {event.target_agent}  [dim]{seconds:.1f} s, {result}[/]"
        )


def _table(rows: Iterable[Iterable[object]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for heading in ("runs", "ok %", "mean ms", "p95 ms", "quality", "router"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    return table


async def run(settings: DatabaseSettings, console: Console) -> None:
    """Write and read on one engine, each in a transaction of its own."""
    engine = create_engine(settings)
    sessions = create_session_factory(engine)
    async with sessions.begin() as session:
        written = await write_workflow(session)
    console.print("Wrote the workflow." if written else "The workflow is there already.")
    async with sessions() as session:
        console.print(await read_tree(session), await read_agents(session))
        number, mean_ms = await count_decisions(session)
    console.print(f"{number} routing decisions, {mean_ms:.1f} ms each on average\n")
    console.print(NEXT, highlight=False)
    await engine.dispose()


def main() -> None:
    """Run on the database that the environment names, else on the embedded server."""
    with with_database(DatabaseSettings()) as settings:
        asyncio.run(run(settings, Console()))


if __name__ == "__main__":
    main()
