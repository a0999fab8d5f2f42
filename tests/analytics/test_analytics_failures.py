"""Errors are told by type, with the agents they hit and an example."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentobs import AgentTransformationEvent, EventType
from agentobs.analytics import Window
from agentobs.analytics.failures import TOP_AGENTS, ErrorOfType, errors
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
MINUTES = [NOON + timedelta(minutes=minute) for minute in range(60)]
TOLD_BY_USER = "what user 4711 said"


def event(minute: float, agent: str = "a", **values: Any) -> AgentTransformationEvent:
    given = {"event_type": EventType.FAILED, "correlation_id": uuid4(), "success": False} | values
    return AgentTransformationEvent(
        target_agent=agent, started_at=NOON + timedelta(minutes=minute), **given
    )


async def add(session: AsyncSession, events: Sequence[AgentTransformationEvent]) -> None:
    session.add_all(events)
    await session.flush()


def told(found: ErrorOfType) -> tuple[str | None, int, float, list[tuple[str, int]]]:
    agents = [(agent.target_agent, agent.count) for agent in found.top_agents]
    return found.error_type, found.count, found.share, agents


async def test_errors_come_by_type_with_the_agents_that_they_hit_most(
    session: AsyncSession,
) -> None:
    await add(
        session,
        [
            event(1, "a", error_type="Timeout"),
            event(2, "b", error_type="Timeout"),
            event(3, "b", error_type="Timeout"),
            event(4, "a"),
            event(5, "a", error_type="Timeout", success=True),
            event(6, "a", error_type="Timeout", success=None),
        ],
    )
    found = await errors(session, WINDOW)

    assert (found.failed, found.error_types) == (4, 2)
    assert [told(each) for each in found.types] == [
        ("Timeout", 3, 0.75, [("b", 2), ("a", 1)]),
        (None, 1, 0.25, [("a", 1)]),
    ]


async def test_the_example_is_the_newest_and_its_message_is_told_on_request_only(
    session: AsyncSession,
) -> None:
    events = [
        event(m, error_type="Timeout", error_message=f"{TOLD_BY_USER} {m}") for m in (5, 9, 7)
    ]
    await add(session, events)
    (quiet,) = (await errors(session, WINDOW)).types
    (loud,) = (await errors(session, WINDOW, with_messages=True)).types

    assert quiet.example_message is None
    assert loud.example_message == f"{TOLD_BY_USER} 9"
    assert TOLD_BY_USER not in repr(loud)
    assert (quiet.example_event_id, quiet.example_correlation_id) == (
        events[1].id,
        events[1].correlation_id,
    )
    assert quiet.first_seen_at == NOON + timedelta(minutes=5)
    assert quiet.last_seen_at == NOON + timedelta(minutes=9)


async def test_a_window_without_failures_has_no_errors(session: AsyncSession) -> None:
    await add(session, [event(-1), event(60), event(1, success=True)])
    found = await errors(session, WINDOW)

    assert (found.failed, found.error_types, len(found.types)) == (0, 0, 0)


async def test_a_limit_leaves_out_rare_types_but_counts_them(session: AsyncSession) -> None:
    await add(session, [event(m, error_type="ab"[m > 2]) for m in range(4)])
    found = await errors(session, WINDOW, limit=1)

    assert (found.failed, found.error_types) == (4, 2)
    assert [told(each)[:3] for each in found.types] == [("a", 3, 0.75)]


async def test_a_limit_below_one_is_refused(session: AsyncSession) -> None:
    with pytest.raises(InvalidValueError, match="limit must be 1 or more"):
        await errors(session, WINDOW, limit=0)


async def test_of_many_agents_those_hit_most_are_named(session: AsyncSession) -> None:
    await add(session, [event(m, f"agent-{m}") for m in range(9)])
    (found,) = (await errors(session, WINDOW)).types

    assert found.agents_hit == 9
    assert [agent.target_agent for agent in found.top_agents] == [
        f"agent-{m}" for m in range(TOP_AGENTS)
    ]


async def test_errors_are_a_table_of_arrow(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")
    await add(session, [event(1, error_type="Timeout")])
    (row,) = (await errors(session, WINDOW)).types.to("arrow").to_pylist()

    assert row["top_agents"] == [{"target_agent": "a", "count": 1}]


FAILURES = st.lists(
    st.tuples(
        st.integers(-5, 65),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, "Timeout", "ValueError", ""]),
        st.sampled_from([True, False, False, None]),
    ),
    max_size=12,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=FAILURES)
async def test_any_failures_are_counted_as_plain_python_counts_them(
    session: AsyncSession, rows: list[tuple[int, str, str | None, bool | None]]
) -> None:
    events = [
        event(minute, agent, error_type=kind, success=success)
        for minute, agent, kind, success in rows
    ]
    async with session.begin_nested() as savepoint:
        await add(session, events)
        failed = [e for e in events if e.success is False and e.started_at in MINUTES]
        expected: dict[str | None, Any] = {
            kind: (
                len(same),
                pytest.approx(len(same) / len(failed)),
                Counter(e.target_agent for e in same),
                max(e.id for e in same),
                min(e.started_at for e in same),
            )
            for kind in {e.error_type for e in failed}
            if (same := [e for e in failed if e.error_type == kind])
        }
        found = await errors(session, WINDOW)
        await savepoint.rollback()

    assert found.failed == len(failed)
    assert {
        each.error_type: (
            each.count,
            each.share,
            {agent.target_agent: agent.count for agent in each.top_agents},
            each.example_event_id,
            each.first_seen_at,
        )
        for each in found.types
    } == expected
    assert [each.count for each in found.types] == sorted(
        (count for count, *_ in expected.values()), reverse=True
    )
