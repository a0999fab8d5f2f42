"""The scores of definitions follow their runs, and nothing else is written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text

from agentobs import AgentDefinition, AgentTransformationEvent, EventType, create_session_factory
from agentobs.analytics import Window
from agentobs.analytics.scores import refresh_agent_scores

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)
WINDOWS, NAMES = count(1), count(1)
UNKNOWN = (None, None, None)


async def add_definition(
    session: AsyncSession, name: str = "a", version: str = "1.0.0", **values: Any
) -> UUID:
    definition = AgentDefinition(
        agent_name=name, agent_version=version, agent_type="x", yaml_config={}, **values
    )
    session.add(definition)
    await session.flush()
    session.expunge(definition)
    return definition.id


async def add_runs(session: AsyncSession, *runs: dict[str, Any]) -> None:
    rows = [
        {
            "event_type": EventType.COMPLETE,
            "correlation_id": uuid4(),
            "target_agent": "a",
            "started_at": NOON,
        }
        | run
        for run in runs
    ]
    if rows:
        await session.execute(insert(AgentTransformationEvent), rows)


def run_of(definition: UUID | None, success: bool | None = True, **values: Any) -> dict[str, Any]:
    return {"agent_definition_id": definition, "success": success, **values}


async def scores_of(session: AsyncSession, definition: UUID) -> tuple[Any, ...]:
    columns = (
        AgentDefinition.success_rate,
        AgentDefinition.quality_score,
        AgentDefinition.avg_execution_time_ms,
    )
    found = await session.execute(select(*columns).where(AgentDefinition.id == definition))
    return tuple(found.one())


def mean(values: list[Any], place: str) -> Decimal | None:
    if not values:
        return None
    exact = sum(map(Decimal, values)) / Decimal(len(values))
    return exact.quantize(Decimal(place), rounding=ROUND_HALF_UP)


RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "definition": st.sampled_from([0, 1, 2, None]),
            "success": st.none() | st.booleans(),
            "quality_score": st.none() | st.decimals(0, 1, places=4),
            "total_execution_duration_ms": st.none() | st.integers(0, 2**31 - 1),
        }
    ),
    max_size=30,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=RUNS)
async def test_scores_are_those_of_the_finished_runs(
    session: AsyncSession, runs: list[dict[str, Any]]
) -> None:
    begin, name = NOON + HOUR * next(WINDOWS), f"agent-{next(NAMES)}"
    ids = [await add_definition(session, name, f"{number}.0.0") for number in range(3)]
    for run in runs:
        number = run["definition"]
        rest = {key: value for key, value in run.items() if key != "definition"}
        key = None if number is None else ids[number]
        await add_runs(session, rest | {"started_at": begin, "agent_definition_id": key})

    found = await refresh_agent_scores(session, Window(begin, begin + HOUR))

    changed = []
    for number, key in enumerate(ids):
        finished = [r for r in runs if r["definition"] == number and r["success"] is not None]
        durations = [r["total_execution_duration_ms"] for r in finished]
        wanted = (
            mean([r["success"] for r in finished], "0.0001"),
            mean([q for r in finished if (q := r["quality_score"]) is not None], "0.0001"),
            mean([d for d in durations if d is not None], "1"),
        )
        assert await scores_of(session, key) == wanted
        if finished:
            changed.append(key)
    assert [row.agent_definition_id for row in found] == changed


async def test_what_changed_is_returned_in_the_order_of_names_and_versions(
    session: AsyncSession,
) -> None:
    ids = [
        await add_definition(session, name, version)
        for name, version in (("b", "1.0.0"), ("a", "1.10.0"), ("a", "1.9.0"))
    ]
    await add_runs(
        session,
        *(run_of(key, quality_score=Decimal("0.5")) for key in ids),
        run_of(ids[0], success=False, total_execution_duration_ms=7),
    )

    found = await refresh_agent_scores(session, WINDOW)

    assert [(row.agent, row.version, row.success_rate) for row in found] == [
        ("a", "1.9.0", 1),
        ("a", "1.10.0", 1),
        ("b", "1.0.0", 0.5),
    ]
    assert found[2].agent_definition_id == ids[0]
    assert (found[2].quality_score, found[2].avg_execution_time_ms) == (0.5, 7)


async def test_a_second_refresh_changes_nothing(session: AsyncSession) -> None:
    third = await add_definition(session)
    await add_runs(
        session,
        *(
            run_of(third, success, total_execution_duration_ms=1)
            for success in (True, False, False)
        ),
        *(run_of(third, None, total_execution_duration_ms=9) for _ in range(3)),
    )
    assert len(await refresh_agent_scores(session, WINDOW)) == 1
    version = text("SELECT xmin::text, ctid::text, updated_at FROM agent_definitions")
    before = (await session.execute(version)).all()

    assert len(await refresh_agent_scores(session, WINDOW)) == 0

    assert (await session.execute(version)).all() == before
    assert await scores_of(session, third) == (Decimal("0.3333"), None, 1)


async def test_definitions_without_finished_runs_keep_what_they_have(session: AsyncSession) -> None:
    scores: dict[str, Any] = {
        "success_rate": Decimal("0.2"),
        "quality_score": Decimal("0.3"),
        "avg_execution_time_ms": 4,
    }
    running, idle, late = [
        await add_definition(session, name, **scores) for name in ("running", "idle", "late")
    ]
    await add_runs(
        session,
        run_of(running, None, quality_score=Decimal(1), total_execution_duration_ms=1),
        run_of(late, started_at=NOON + HOUR),
        run_of(late, started_at=NOON - timedelta(microseconds=1)),
    )

    assert len(await refresh_agent_scores(session, WINDOW)) == 0

    for key in (running, idle, late):
        assert await scores_of(session, key) == (Decimal("0.2"), Decimal("0.3"), 4)


async def test_a_score_that_no_run_knows_is_kept(session: AsyncSession) -> None:
    key = await add_definition(session, quality_score=Decimal("0.3"), avg_execution_time_ms=4)
    await add_runs(session, run_of(key))

    (row,) = await refresh_agent_scores(session, WINDOW)

    assert (row.success_rate, row.quality_score, row.avg_execution_time_ms) == (1, 0.3, 4)
    assert await scores_of(session, key) == (1, Decimal("0.3"), 4)


async def test_runs_without_a_definition_count_for_none_unless_asked_for(
    session: AsyncSession,
) -> None:
    key = await add_definition(session)
    await add_runs(session, run_of(None))

    assert len(await refresh_agent_scores(session, WINDOW)) == 0
    assert await scores_of(session, key) == UNKNOWN
    assert len(await refresh_agent_scores(session, WINDOW, by_name=True)) == 1
    assert await scores_of(session, key) == (1, None, None)


async def test_by_name_they_count_for_the_newest_active_definition(session: AsyncSession) -> None:
    old = await add_definition(session, version="3.0.0", created_at=NOON)
    newest = await add_definition(session, version="1.0.0", created_at=NOON + HOUR)
    inactive = await add_definition(
        session, version="4.0.0", created_at=NOON + 2 * HOUR, is_active=False
    )
    other = await add_definition(session, "b")
    await add_runs(
        session,
        run_of(old, success=False),
        run_of(newest, success=False),
        *[run_of(None)] * 3,
        run_of(None, target_agent="nobody"),
    )

    await refresh_agent_scores(session, WINDOW, by_name=True)

    assert await scores_of(session, old) == (0, None, None)
    assert await scores_of(session, newest) == (Decimal("0.75"), None, None)
    assert await scores_of(session, inactive) == UNKNOWN
    assert await scores_of(session, other) == UNKNOWN


async def test_new_scores_are_no_change_of_the_definition(session: AsyncSession) -> None:
    key = await add_definition(session, updated_at=NOON)
    await add_runs(session, run_of(key))

    assert len(await refresh_agent_scores(session, WINDOW)) == 1

    statement = select(AgentDefinition.updated_at).where(AgentDefinition.id == key)
    assert await session.scalar(statement) == NOON


async def test_a_refresh_is_the_caller_s_to_commit(session: AsyncSession) -> None:
    key = await add_definition(session)
    await add_runs(session, run_of(key))

    await refresh_agent_scores(session, WINDOW)

    assert session.in_transaction()
    await session.rollback()
    found = await session.execute(select(AgentDefinition).where(AgentDefinition.id == key))
    assert found.all() == []


async def test_new_events_do_not_wait_for_a_refresh_that_is_not_committed(
    agentobs_engine: AsyncEngine,
) -> None:
    sessions = create_session_factory(agentobs_engine)
    async with sessions.begin() as first:
        key = await add_definition(first)
        await add_runs(first, run_of(key))

    async with sessions() as refreshing, sessions.begin() as recording:
        assert len(await refresh_agent_scores(refreshing, WINDOW)) == 1
        await recording.execute(text("SET LOCAL lock_timeout = '5s'"))
        await add_runs(recording, run_of(key, success=False))
        await refreshing.commit()

    async with sessions.begin() as after:
        assert await scores_of(after, key) == (1, None, None)
        assert len(await refresh_agent_scores(after, WINDOW)) == 1
        assert await scores_of(after, key) == (Decimal("0.5"), None, None)


async def refresh_and_commit(engine: AsyncEngine, window: Window) -> int:
    async with create_session_factory(engine).begin() as session:
        return len(await refresh_agent_scores(session, window))


async def test_refreshes_at_one_time_do_not_deadlock_nor_write_a_row_twice(
    agentobs_engine: AsyncEngine,
) -> None:
    definitions = 100
    async with create_session_factory(agentobs_engine).begin() as session:
        for number in range(definitions):
            key = await add_definition(session, f"agent-{number * 37 % definitions}")
            await add_runs(session, run_of(key))

    for window in (WINDOW, Window(NOON - HOUR, NOON + HOUR)):
        refreshes = [refresh_and_commit(agentobs_engine, window) for _ in range(4)]
        changed = await asyncio.gather(*refreshes)
        assert sum(changed) == (definitions if window == WINDOW else 0)


@pytest.mark.parametrize("by_name", [False, True])
async def test_without_any_events_nothing_happens(session: AsyncSession, by_name: bool) -> None:
    key = await add_definition(session)
    assert len(await refresh_agent_scores(session, WINDOW, by_name=by_name)) == 0
    assert await scores_of(session, key) == UNKNOWN
