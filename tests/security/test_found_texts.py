"""Names that look like SQL are told apart by every question, from rows and from rollups."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from support.hostile import CLASSICS, nothing_else_changes
from support.rollups import EVERYTHING, NOON, decision, fold, opened, run, store_rows

from agentobs import AgentDefinition
from agentobs.analytics import (
    agent_versions,
    agents,
    calibration,
    confidence,
    errors,
    feedback,
    handoffs,
    routing_summary,
    session_traces,
    slowest,
    trace,
    workflows,
)
from agentobs.registry import (
    find_agents_by_capabilities,
    find_agents_by_patterns,
    find_agents_by_triggers,
)
from agentobs.testing.databases import run as work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs import DatabaseSettings

NAMES = tuple(name[:100] for name in CLASSICS)
MINUTE = timedelta(minutes=1)


def definition(name: str) -> AgentDefinition:
    return AgentDefinition(
        agent_name=name,
        agent_type="general",
        yaml_config={},
        capabilities=[name],
        triggers=[name],
        trigger_patterns=[name],
    )


def ended(number: int, name: str) -> Any:
    """Return a run of its own workflow and conversation."""
    row = run(
        NOON + number * MINUTE,
        number,
        target_agent=name,
        source_agent=f"{name}>",
        error_type=name,
        error_message=name,
        user_request=name,
        context_snapshot={name: name},
        success=False,
    )
    row.session_id = row.correlation_id
    return row


def decided(number: int, name: str) -> Any:
    row = decision(
        NOON + number * MINUTE,
        number,
        selected_agent=name,
        selection_strategy=name,
        user_request_hash="0" * 64,
        confidence_score=0.5,
        trigger_confidence=0.5,
        selection_validated=True,
        actual_success=True,
        feedback_provided=True,
        feedback_type=name[:50],
        feedback_details={name: name},
    )
    row.metric_type = name
    return row


@pytest.fixture(scope="module")
def stored(guarded: DatabaseSettings) -> DatabaseSettings:
    """Return the database with a definition, a run and a decision of each name."""
    numbered = list(enumerate(NAMES, start=1))
    rows = [row(*each) for row in (ended, decided) for each in numbered]
    work(store_rows(guarded, *map(definition, NAMES), *rows))
    return guarded


@pytest_asyncio.fixture
async def session(stored: DatabaseSettings) -> AsyncIterator[AsyncSession]:
    async with nothing_else_changes(stored), opened(stored) as found:
        yield found


def each_once(found: Iterable[Any]) -> bool:
    return sorted(map(str, found)) == sorted(NAMES)


async def test_agents_are_told_apart(session: AsyncSession) -> None:
    assert each_once(row.agent for row in await agents(session, EVERYTHING))


async def test_an_agent_is_found_by_its_name(session: AsyncSession) -> None:
    for number, name in enumerate(NAMES, start=1):
        (found,) = await agent_versions(session, EVERYTHING, name)
        assert (found.agent, found.executions, found.p50_duration_ms) == (name, 1, number)


async def test_decisions_are_found_by_the_name_of_their_type(session: AsyncSession) -> None:
    for number, name in enumerate(NAMES, start=1):
        (slow,) = await slowest(session, EVERYTHING, metric_types=[name])
        summary = await routing_summary(session, EVERYTHING, metric_types=[name])
        told = await feedback(session, EVERYTHING, metric_types=[name], with_details=True)

        assert (slow.selected_agent, slow.total_routing_time_us) == (name, number)
        assert (summary.decisions, summary.p50_total_us) == (1, number)
        assert [row.feedback_type for row in told.types] == [name[:50]]


async def test_hand_offs_are_told_apart(session: AsyncSession) -> None:
    found = await handoffs(session, EVERYTHING)

    assert each_once(row.target_agent for row in found.edges)
    assert {row.source_agent for row in found.edges} == {f"{name}>" for name in NAMES}


async def test_errors_are_told_apart(session: AsyncSession) -> None:
    found = await errors(session, EVERYTHING, limit=100, with_messages=True)

    assert each_once(row.error_type for row in found.types)
    assert each_once(row.example_message for row in found.types)


async def test_the_confidence_in_agents_is_told_apart(session: AsyncSession) -> None:
    by_agent = await calibration(session, EVERYTHING, by="agent")
    by_strategy = await calibration(session, EVERYTHING, by="strategy")
    components = await confidence(session, EVERYTHING)

    assert each_once(row.group for row in by_agent.groups)
    assert each_once(row.group for row in by_strategy.groups)
    assert each_once({row.agent for row in components})


async def test_workflows_are_told_with_what_was_asked_in_them(session: AsyncSession) -> None:
    newest = await workflows(session, EVERYTHING, "failed", limit=100)
    assert each_once(row.first_agent for row in newest)

    for row in newest:
        found = await trace(session, str(row.correlation_id), with_context=True)
        (same,) = await session_traces(session, str(row.correlation_id), with_context=True)
        (node,) = found.nodes
        assert same == found
        assert (node.target_agent, node.user_request) == (row.first_agent, row.first_agent)


async def test_definitions_are_found_by_what_they_are_good_for(session: AsyncSession) -> None:
    for name in NAMES:
        (capable,) = await find_agents_by_capabilities(session, [name], match="all")
        triggered = await find_agents_by_triggers(session, [name], least_similarity=1)
        assert capable.agent_name == name
        assert [agent.agent_name for agent in triggered.agents] == [name]
    everyone = await find_agents_by_capabilities(session, NAMES, limit=100)
    assert each_once(agent.agent_name for agent in everyone)


async def test_patterns_of_definitions_are_expressions_and_nothing_else(
    session: AsyncSession,
) -> None:
    found = await find_agents_by_patterns(session, "'; DROP TABLE canary.kept; --", limit=100)

    broken = {problem.pattern for problem in found.problems}
    assert {"[", "\\", "*/"} <= broken
    assert "'; DROP TABLE canary.kept; --" in {agent.agent_name for agent in found.agents}


async def test_agents_are_told_apart_by_the_rollups(stored: DatabaseSettings) -> None:
    assert await fold(stored)

    async with opened(stored) as session:
        found = await agents(session, EVERYTHING)

    assert each_once(row.agent for row in found)
    assert {row.executions for row in found} == {1}
