"""Hand-offs are a graph, in which circles and dead ends can be told."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentobs import AgentTransformationEvent
from agentobs.analytics import Window
from agentobs.analytics.handoff_graph import Handoffs, handoffs
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))


def event(
    minute: float,
    source: str | None,
    target: str,
    *,
    workflow: int = 1,
    success: bool | None = True,
    took: int | None = None,
) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        event_type="x",
        correlation_id=UUID(int=workflow),
        source_agent=source,
        target_agent=target,
        success=success,
        total_execution_duration_ms=took,
        started_at=NOON + timedelta(minutes=minute),
    )


async def add(session: AsyncSession, events: Sequence[AgentTransformationEvent]) -> None:
    session.add_all(events)
    await session.flush()


def rows(table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.model_dump().values()) for row in table]


async def test_edges_come_with_how_their_runs_did_and_the_entry_has_no_source(
    session: AsyncSession,
) -> None:
    await add(
        session,
        [
            event(0, None, "a", took=10),
            event(1, "a", "b", took=20),
            event(2, "a", "b", success=False, took=30),
            event(3, "a", "b", success=None),
            event(4, "b", "c", success=None),
        ],
    )
    found = await handoffs(session, WINDOW)

    assert rows(found.edges) == [
        ("a", "b", 3, 1, 1, 0.5, 25.0),
        (None, "a", 1, 1, 0, 1.0, 10.0),
        ("b", "c", 1, 0, 0, None, None),
    ]


async def test_ping_pong_is_both_ways_within_one_workflow(session: AsyncSession) -> None:
    await add(
        session,
        [
            event(0, "b", "a"),
            event(1, "a", "b"),
            event(2, "b", "a"),
            event(3, "a", "b", workflow=2),
            event(4, "b", "a", workflow=2),
            event(5, "a", "c", workflow=3),
            event(6, "c", "a", workflow=4),
            event(7, "a", "a"),
        ],
    )
    found = await handoffs(session, WINDOW)

    assert rows(found.ping_pongs) == [("a", "b", 2, 2, 3, 2)]


async def test_self_transformations_are_told_even_where_they_are_rare(
    session: AsyncSession,
) -> None:
    events = [event(minute, "a", "b") for minute in range(3)]
    await add(session, [*events, event(3, "c", "c", success=False), event(4, None, "c")])
    found = await handoffs(session, WINDOW, limit=1)

    assert rows(found.edges) == [("a", "b", 3, 3, 0, 1.0, None)]
    assert rows(found.self_transformations) == [("c", "c", 1, 0, 1, 0.0, None)]


async def test_a_dead_end_is_the_last_step_of_a_workflow_that_failed_or_never_ended(
    session: AsyncSession,
) -> None:
    await add(
        session,
        [
            event(0, None, "a", success=False, workflow=1),
            event(1, "a", "b", success=False, workflow=1),
            event(2, None, "b", success=None, workflow=2),
            event(3, None, "b", workflow=3),
            event(4, None, "b", success=False, workflow=4),
            event(5, "b", "c", workflow=4),
        ],
    )
    found = await handoffs(session, WINDOW)

    assert rows(found.dead_ends) == [("b", 4, 3, 1, 1, 0.5)]


async def test_an_empty_window_has_no_handoffs(session: AsyncSession) -> None:
    await add(session, [event(-1, "a", "b"), event(60, "b", "b", success=False)])
    found = await handoffs(session, WINDOW)

    assert [len(table) for table in tables(found)] == [0, 0, 0, 0]


async def test_each_table_is_bounded_by_the_limit(session: AsyncSession) -> None:
    circles = [
        # One after the other: of two at once the key, which chance has a part in, tells the last.
        event(minute + step / 3, source, target, workflow=minute, success=False)
        for minute, name in enumerate("abc", start=1)
        for step, (source, target) in enumerate(((name, "z"), ("z", name), (name, name)))
    ]
    await add(session, circles)

    assert [len(table) for table in tables(await handoffs(session, WINDOW))] == [9, 3, 3, 3]
    assert [len(table) for table in tables(await handoffs(session, WINDOW, limit=2))] == [2] * 4
    with pytest.raises(InvalidValueError, match="limit must be 1 or more"):
        await handoffs(session, WINDOW, limit=0)


def tables(found: Handoffs) -> list[Any]:
    return [found.edges, found.self_transformations, found.ping_pongs, found.dead_ends]


AGENTS = ("a", "b", "c")
ANY_EVENTS = st.lists(
    st.builds(
        event,
        st.integers(-5, 65),
        st.sampled_from([None, *AGENTS]),
        st.sampled_from(AGENTS),
        workflow=st.integers(1, 3),
        success=st.sampled_from([True, False, None]),
        took=st.none() | st.integers(-5, 1000),
    ),
    max_size=16,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=ANY_EVENTS)
async def test_any_events_are_the_graph_that_plain_python_makes_of_them(
    session: AsyncSession, events: list[AgentTransformationEvent]
) -> None:
    async with session.begin_nested() as savepoint:
        await add(session, events)
        held = [e for e in events if WINDOW.since <= e.started_at < WINDOW.until]
        expected = edges_of(held), ping_pongs_of(held), dead_ends_of(held)
        found = await handoffs(session, WINDOW)
        await savepoint.rollback()

    assert {row[:2]: row[2:] for row in rows(found.edges)} == expected[0]
    assert [e for e in found.edges if e.source_agent == e.target_agent] == list(
        found.self_transformations
    )
    assert {row[:2]: row[2:] for row in rows(found.ping_pongs)} == expected[1]
    assert {row[0]: row[1:] for row in rows(found.dead_ends)} == expected[2]
    counts = [edge.count for edge in found.edges]
    assert counts == sorted(counts, reverse=True)


def edges_of(events: Sequence[AgentTransformationEvent]) -> dict[Any, Any]:
    of_edge = defaultdict(list)
    for each in events:
        of_edge[each.source_agent, each.target_agent].append(each)
    return {edge: numbers_of(runs) for edge, runs in of_edge.items()}


def numbers_of(runs: Sequence[AgentTransformationEvent]) -> tuple[Any, ...]:
    outcomes = [run.success for run in runs if run.success is not None]
    times = [
        run.total_execution_duration_ms
        for run in runs
        if run.total_execution_duration_ms is not None
    ]
    return (
        len(runs),
        sum(outcomes),
        len(outcomes) - sum(outcomes),
        pytest.approx(fmean(outcomes)) if outcomes else None,
        pytest.approx(fmean(times)) if times else None,
    )


def ping_pongs_of(events: Sequence[AgentTransformationEvent]) -> dict[Any, Any]:
    found: dict[Any, list[int]] = {}
    steps: Counter[Any] = Counter(
        (e.correlation_id, e.source_agent, e.target_agent) for e in events
    )
    for (workflow, source, target), forth in steps.items():
        back = steps[workflow, target, source]
        if source is not None and source < target and back:
            before = found.get((source, target), [0, 0, 0, 0])
            new = (1, forth, back, min(forth, back))
            found[source, target] = [a + b for a, b in zip(before, new, strict=True)]
    return {pair: tuple(numbers) for pair, numbers in found.items()}


def dead_ends_of(events: Sequence[AgentTransformationEvent]) -> dict[Any, Any]:
    last: dict[UUID, AgentTransformationEvent] = {}
    for each in sorted(events, key=lambda event: event.id):
        last[each.correlation_id] = each
    found = {}
    for agent in AGENTS:
        ends = [each.success for each in last.values() if each.target_agent == agent]
        runs = sum(each.target_agent == agent for each in events)
        failed, unended = ends.count(False), ends.count(None)
        if failed + unended:
            share = pytest.approx((failed + unended) / runs)
            found[agent] = (runs, len(ends), failed, unended, share)
    return found
