"""Rows in hours that have closed, folds of them, and answers beside those of the rows alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from agentobs import AgentTransformationEvent, RouterPerformanceMetric, create_engine
from agentobs.analytics import Window
from agentobs.analytics.performance import agents, select_agents
from agentobs.analytics.router import (
    routing,
    routing_summary,
    select_routing,
    select_routing_summary,
)
from agentobs.keys import uuid7_at
from agentobs.rollups import EXECUTION, FAMILIES, ROUTING, Family, Store, bring_up_to_date
from agentobs.rollups.tables import MARKS, STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
# Long ago, in a month that no partition is made for: rows lie in DEFAULT.
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
LATER = NOON + 10 * DAY
EVERYTHING = Window(NOON - 2 * DAY, LATER)
TABLES = {"agent_transformation_events": EXECUTION, "router_performance_metrics": ROUTING}
MODELS = {EXECUTION: AgentTransformationEvent, ROUTING: RouterPerformanceMetric}


def decision(instant: datetime, microseconds: int | None = 1000, **values: Any) -> Any:
    return RouterPerformanceMetric(
        id=uuid7_at(instant),
        metric_type="routing_decision",
        measured_at=instant,
        total_routing_time_us=microseconds,
        **values,
    )


def run(instant: datetime, milliseconds: int | None = 100, **values: Any) -> Any:
    row = {"target_agent": "agent-a", "success": True} | values
    return AgentTransformationEvent(
        id=uuid7_at(instant),
        event_type="transformation_complete",
        correlation_id=uuid7_at(instant),
        started_at=instant,
        total_execution_duration_ms=milliseconds,
        **row,
    )


async def store_rows(settings: DatabaseSettings, *rows: Any) -> None:
    async with opened(settings) as session:
        session.add_all(rows)
        await session.commit()


@asynccontextmanager
async def opened(settings: DatabaseSettings, **options: Any) -> AsyncIterator[AsyncSession]:
    """Yield a session on a connection of its own."""
    engine = create_engine(settings, poolclass=NullPool, **options)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    await engine.dispose()


@asynccontextmanager
async def folder(settings: DatabaseSettings) -> AsyncIterator[Store]:
    """Yield what folds, as maintenance has it."""
    engine = create_engine(settings, poolclass=NullPool)
    async with engine.connect() as connection:
        yield Store(connection, settings.schema_name or "public")
    await engine.dispose()


async def fold(
    settings: DatabaseSettings,
    now: datetime = LATER,
    families: Iterable[Family] = FAMILIES,
    patience_seconds: float = 0,
) -> bool:
    """Fold what has closed by then; return whether no closed hour is left."""
    async with folder(settings) as store:
        done = [
            await bring_up_to_date(store, family, now, patience_seconds=patience_seconds)
            for family in families
        ]
    return not any(done)


async def marked(connection: AsyncConnection, family: Family = ROUTING) -> list[datetime]:
    """Return the hours that are marked, as often as they are."""
    found = select(MARKS.c.hour).where(MARKS.c.table_name == family.name).order_by(MARKS.c.hour)
    return [hour.astimezone(UTC) for hour in await connection.scalars(found)]


async def folded_to(connection: AsyncConnection, family: Family = ROUTING) -> datetime:
    found = select(STATE.c.folded_to).where(STATE.c.table_name == family.name)
    instant: datetime = (await connection.execute(found)).scalar_one()
    return instant.astimezone(UTC)


async def differences(session: AsyncSession, window: Window = EVERYTHING) -> list[str]:
    """Return what the answers say otherwise than the rows do, all of one snapshot."""
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    found = [
        *await _of_agents(session, window),
        *await _of_summary(session, window),
        *[
            each
            for every in (HOUR, 6 * HOUR, DAY)
            for each in await _of_steps(session, window, every)
        ],
    ]
    await session.rollback()
    return found


async def _of_agents(session: AsyncSession, window: Window) -> list[str]:
    answers = {row.agent: row.model_dump() for row in await agents(session, window)}
    rows = (await session.execute(select_agents(window))).mappings()
    expected = {row["agent"]: row for row in rows}
    return _differing("agents", answers, expected)


async def _of_summary(session: AsyncSession, window: Window) -> list[str]:
    answer = (await routing_summary(session, window)).model_dump()
    row = (await session.execute(select_routing_summary(window))).mappings().one()
    return _differing("summary", {None: answer}, {None: row})


async def _of_steps(session: AsyncSession, window: Window, every: timedelta) -> list[str]:
    answers = {
        number: step.model_dump()
        for number, step in enumerate(await routing(session, window, every), 1)
        if step.decisions
    }
    rows = (await session.execute(select_routing(window, every))).mappings()
    expected = {row["step"]: row for row in rows}
    return _differing(str(every), answers, expected)


def _differing(
    what: str, answers: Mapping[Any, Mapping[str, Any]], rows: Mapping[Any, Mapping[Any, Any]]
) -> list[str]:
    if answers.keys() != rows.keys():
        return [f"{what}: {sorted(map(str, answers.keys() ^ rows.keys()))}"]
    return [
        f"{what} {key} {name}: {answers[key][name]}, and the rows say {row[name]}"
        for key, row in rows.items()
        for name in row
        if name not in {"agent", "step"} and not _is_same(name, answers[key][name], row[name])
    ]


def _is_same(name: str, answer: Any, expected: Any) -> bool:
    if answer is None or expected is None:
        return answer is expected
    if name.startswith(("p50", "p95", "p99")):
        # Below zero all times are one.
        return bool(abs(max(answer, 0) - max(expected, 0)) <= 0.01 * max(expected, 0))
    return bool(answer == expected)


def instants_within(window: Window, edges: Sequence[datetime]) -> list[Window]:
    """Return windows between the edges that lie in the window."""
    inside = sorted({window.since, window.until, *edges})
    return [Window(since, until) for since, until in pairwise(inside)]
