"""Whatever is written, changed and deleted, and whenever it is folded: answers are the rows'."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from support.rollups import DAY, HOUR, NOON, decision, differences, fold, opened, run

from agentobs import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.analytics import Window

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs import DatabaseSettings

TIMES = st.none() | st.integers(-5, 400) | st.integers(0, 2**31 - 1)
AGENTS = st.sampled_from([None, "agent-a", "agent-b", "Ägent"])
# Two days, so that there are whole ones.
OFFSETS = st.timedeltas(-DAY, DAY + 12 * HOUR) | st.integers(-20, 30).map(lambda n: n * HOUR)
DECISIONS = st.fixed_dictionaries(
    {
        "selected_agent": AGENTS,
        "microseconds": TIMES,
        "cache_lookup_us": TIMES,
        "trigger_matching_us": TIMES,
        "confidence_scoring_us": TIMES,
        "cache_hit": st.none() | st.booleans(),
        "cache_age_seconds": st.none() | st.integers(0, 10**6),
    }
)
RUNS = st.fixed_dictionaries(
    {
        "target_agent": AGENTS.filter(bool),
        "milliseconds": TIMES,
        "success": st.none() | st.booleans(),
        "quality_score": st.none() | st.decimals(0, 1, places=4),
    }
)
CHANGES = st.lists(
    st.tuples(st.just("decide"), OFFSETS, DECISIONS)
    | st.tuples(st.just("run"), OFFSETS, RUNS)
    | st.tuples(st.just("change"), OFFSETS, DECISIONS)
    | st.tuples(st.just("delete"), OFFSETS, st.none())
    | st.tuples(st.just("fold"), OFFSETS, st.none()),
    max_size=25,
)
WINDOWS = st.lists(st.tuples(OFFSETS, OFFSETS).filter(lambda ends: ends[0] < ends[1]), max_size=3)
# Each example has weeks of its own, in one database.
STARTS = count()


async def apply(
    database: DatabaseSettings, session: AsyncSession, base: datetime, change: tuple[Any, ...]
) -> None:
    what, offset, values = change
    at = base + offset
    near = RouterPerformanceMetric.measured_at.between(at - 3 * HOUR, at)
    if what == "fold":
        await fold(database, at)
    elif what == "decide":
        session.add(decision(at, **values))
    elif what == "run":
        session.add(run(at, **values))
    elif what == "change":
        changed = {"total_routing_time_us": values["microseconds"], "cache_hit": True}
        await session.execute(update(RouterPerformanceMetric).where(near).values(changed))
    else:
        await session.execute(delete(RouterPerformanceMetric).where(near))
        recent = AgentTransformationEvent.started_at.between(at - 3 * HOUR, at)
        await session.execute(delete(AgentTransformationEvent).where(recent))
    await session.commit()


def windows(base: datetime, ends: list[tuple[timedelta, timedelta]]) -> list[Window]:
    whole = Window(base - 2 * DAY, base + 3 * DAY)
    return [whole, *(Window(base + since, base + until) for since, until in ends)]


@settings(
    max_examples=25,
    # An example takes a second: to make a failing one smaller would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=CHANGES, late=CHANGES, ends=WINDOWS)
def test_answers_are_those_of_the_rows_in_every_window(
    agentobs_database: DatabaseSettings,
    first: list[tuple[Any, ...]],
    late: list[tuple[Any, ...]],
    ends: list[tuple[timedelta, timedelta]],
) -> None:
    base = NOON + 7 * DAY * next(STARTS)

    async def story() -> None:
        async with opened(agentobs_database) as session:
            for change in first:
                await apply(agentobs_database, session, base, change)
            await fold(agentobs_database, base + DAY)
            for change in late:
                await apply(agentobs_database, session, base, change)
            for window in windows(base, ends):
                assert await differences(session, window) == []

    asyncio.run(story())
