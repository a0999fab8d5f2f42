"""What agents and their versions did, against a count of the same rows in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from agentobs import AgentDefinition, AgentTransformationEvent, EventType
from agentobs.analytics import Window
from agentobs.analytics.performance import AgentPerformance, agent_versions, agents
from agentobs.keys import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)

RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "target_agent": st.sampled_from(["a", "B", "ä", "", "it's"]),
            "success": st.none() | st.booleans(),
            "total_execution_duration_ms": st.none() | st.integers(0, 2**31 - 1),
            "quality_score": st.none() | st.decimals(0, 1, places=4),
            "is_before": st.booleans(),
            "offset": st.timedeltas(timedelta(0), HOUR - timedelta(microseconds=1)),
        }
    ),
    max_size=40,
)
WINDOWS = count(1)


async def add_runs(session: AsyncSession, *runs: dict[str, Any]) -> None:
    rows = [
        {"event_type": EventType.COMPLETE, "correlation_id": uuid4(), "started_at": NOON} | run
        for run in runs
    ]
    if rows:
        await session.execute(insert(AgentTransformationEvent), rows)


def runs_of(agent: str, count: int, **values: Any) -> list[dict[str, Any]]:
    return [{"target_agent": agent, **values} for _ in range(count)]


async def add_definition(session: AsyncSession, name: str, version: str) -> UUID:
    definition = AgentDefinition(
        agent_name=name, agent_version=version, agent_type="x", yaml_config={}
    )
    session.add(definition)
    await session.flush()
    return definition.id


def known(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def disc(values: Sequence[int], share: float) -> int | None:
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)] if values else None


def average(values: Sequence[Any]) -> float | None:
    return fmean(map(float, values)) if values else None


def numbers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    durations = known(rows, "total_execution_duration_ms")
    return {
        "executions": len(rows),
        "finished": len(known(rows, "success")),
        "success_rate": average(known(rows, "success")),
        "mean_duration_ms": average(durations),
        "p50_duration_ms": disc(durations, 0.5),
        "p95_duration_ms": disc(durations, 0.95),
        "p99_duration_ms": disc(durations, 0.99),
        "rated": len(known(rows, "quality_score")),
        "mean_quality": average(known(rows, "quality_score")),
    }


def expected(now: Sequence[dict[str, Any]], then: Sequence[dict[str, Any]]) -> dict[str, Any]:
    new, old = numbers(now), numbers(then) if then else {}

    def delta(name: str) -> Any:
        return None if new[name] is None or old.get(name) is None else new[name] - old[name]

    return new | {
        "executions_delta": delta("executions"),
        "success_rate_delta": delta("success_rate"),
        "p95_duration_delta_ms": delta("p95_duration_ms"),
        "mean_quality_delta": delta("mean_quality"),
    }


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=RUNS)
async def test_the_numbers_of_agents_are_those_of_their_rows(
    session: AsyncSession, runs: list[dict[str, Any]]
) -> None:
    begin = NOON + 2 * HOUR * next(WINDOWS)
    for run in runs:
        run["started_at"] = begin - HOUR * run.pop("is_before") + run.pop("offset")
    await add_runs(session, *runs)
    now = [run for run in runs if run["started_at"] >= begin]
    names = {run["target_agent"] for run in now}

    found = await agents(session, Window(begin, begin + HOUR))

    order = sorted(
        names, key=lambda name: (-len([r for r in now if r["target_agent"] == name]), name)
    )
    assert [row.agent for row in found] == order
    for row in found:
        both = [run for run in runs if run["target_agent"] == row.agent]
        wanted = expected(
            [run for run in both if run["started_at"] >= begin],
            [run for run in both if run["started_at"] < begin],
        )
        assert row.model_dump(exclude={"agent"}) == pytest.approx(wanted)


async def test_a_window_without_runs_has_no_agents(session: AsyncSession) -> None:
    assert len(await agents(session, WINDOW)) == 0
    assert len(await agent_versions(session, WINDOW, "a")) == 0


async def test_runs_that_are_not_over_are_executions_without_a_success_rate(
    session: AsyncSession,
) -> None:
    await add_runs(session, *runs_of("a", 3))

    (row,) = await agents(session, WINDOW)

    assert (row.executions, row.finished, row.success_rate) == (3, 0, None)
    assert (row.mean_duration_ms, row.p95_duration_ms, row.mean_quality) == (None, None, None)


async def test_an_agent_that_is_new_has_no_trend(session: AsyncSession) -> None:
    await add_runs(
        session,
        *runs_of("new", 2, success=True, quality_score=Decimal(1)),
        *runs_of("old", 1, success=True, started_at=NOON - timedelta(microseconds=1)),
    )

    (row,) = await agents(session, WINDOW)

    deltas = {name: value for name, value in row.model_dump().items() if "delta" in name}
    assert row.agent == "new"
    assert set(deltas.values()) == {None}


async def test_the_first_window_there_can_be_has_no_trend(session: AsyncSession) -> None:
    await add_runs(session, *runs_of("a", 2, success=True))

    (row,) = await agents(session, Window(EPOCH, NOON + HOUR))

    assert (row.executions, row.executions_delta) == (2, None)


async def test_the_end_of_a_window_is_not_in_it(session: AsyncSession) -> None:
    edges = (NOON - timedelta(microseconds=1), NOON, NOON + HOUR)
    await add_runs(session, *({"target_agent": "a", "started_at": instant} for instant in edges))

    (row,) = await agents(session, WINDOW)

    assert (row.executions, row.executions_delta) == (1, 0)


async def test_versions_are_in_semantic_order_and_runs_without_one_are_a_row(
    session: AsyncSession,
) -> None:
    versions = ["1.10.0", "1.9.0", "nightly", "2.0.0", "2.0.0-rc.1"]
    ids = {version: await add_definition(session, "a", version) for version in versions}
    unseen = await add_definition(session, "a", "3.0.0")
    for number, key in enumerate([*ids.values(), None], 1):
        await add_runs(session, *runs_of("a", number, success=True, agent_definition_id=key))

    found = await agent_versions(session, WINDOW, "a")

    ordered = ["nightly", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0", None]
    assert [row.version for row in found] == ordered
    assert [row.agent_definition_id for row in found] == [
        ids.get(version or "") for version in ordered
    ]
    assert [row.executions for row in found] == [3, 2, 1, 5, 4, 6]
    assert {row.agent for row in found} == {"a"}
    assert unseen not in {row.agent_definition_id for row in found}


async def test_a_version_is_compared_with_itself(session: AsyncSession) -> None:
    old, new = [await add_definition(session, "a", version) for version in ("1.0.0", "2.0.0")]
    await add_runs(
        session,
        *runs_of("a", 4, success=True, agent_definition_id=old, started_at=NOON - HOUR),
        *runs_of("a", 1, success=False, agent_definition_id=old),
        *runs_of("a", 5, success=True, agent_definition_id=new),
        *runs_of("a", 2, success=True, started_at=NOON - HOUR),
        *runs_of("a", 3, success=True),
        *runs_of("b", 9, success=True, agent_definition_id=old),
    )

    found = await agent_versions(session, WINDOW, "a")

    assert [(row.version, row.executions, row.executions_delta) for row in found] == [
        ("1.0.0", 1, -3),
        ("2.0.0", 5, None),
        (None, 3, 1),
    ]
    assert found[0].success_rate_delta == -1


async def test_agents_become_a_table_that_begins_with_their_name(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")
    await add_runs(session, *runs_of("a", 2, success=True))

    table = (await agents(session, WINDOW)).to("arrow")

    assert table.column_names == list(AgentPerformance.model_fields)
    assert table.column_names[0] == "agent"
