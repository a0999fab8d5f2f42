"""Triggers and patterns that several agents have are told, with the agents."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from support.models import new_definition, statements_of

from agentobs import AgentDefinition
from agentobs.registry import Candidates, Collision, trigger_collisions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def store(session: AsyncSession, *definitions: dict[str, Any]) -> None:
    session.add_all([new_definition(**values) for values in definitions])
    await session.flush()


def agent(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"agent_name": name, "agent_version": version} | more


def told(found: tuple[Collision, ...]) -> list[tuple[str, str, list[str]]]:
    return [(each.kind, each.text, [a.agent_name for a in each.agents]) for each in found]


async def test_a_trigger_of_two_agents_is_a_collision_whatever_its_case_and_space(
    session: AsyncSession,
) -> None:
    await store(
        session,
        agent("b", triggers=["Find  the\tBUG", "STRASSE"]),
        agent("a", triggers=[" find the bug", "fix it"]),
        agent("c", triggers=["find the bugs", "straße"]),
        agent("d", triggers=None),
    )

    with statements_of(session) as sent:
        found = await trigger_collisions(session)

    assert sent == ["SELECT"]
    assert told(found) == [
        ("trigger", "find the bug", ["a", "b"]),
        ("trigger", "strasse", ["b", "c"]),
    ]
    assert [each.written for each in found[0].agents] == [" find the bug", "Find  the\tBUG"]


async def test_equal_patterns_are_collisions_and_other_ones_none(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", trigger_patterns=[r"\bbug\b", "Fix"]),
        agent("b", trigger_patterns=[r"\bbug\b", "fix"], triggers=["fix"]),
    )

    assert told(await trigger_collisions(session)) == [("pattern", r"\bbug\b", ["a", "b"])]


async def test_what_most_agents_have_comes_first(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", triggers=["two", "three", "also two"], trigger_patterns=["x"]),
        agent("b", triggers=["two", "three", "also two"], trigger_patterns=["x"]),
        agent("c", triggers=["three"], trigger_patterns=["x"]),
    )

    texts = [(each.kind, each.text) for each in await trigger_collisions(session)]
    assert texts == [
        ("trigger", "three"),
        ("trigger", "also two"),
        ("trigger", "two"),
        ("pattern", "x"),
    ]


async def test_an_agent_does_not_collide_with_itself(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", "1.0.0", triggers=["find", "FIND"]),
        agent("a", "2.0.0", triggers=["find"]),
    )

    assert await trigger_collisions(session) == ()
    assert await trigger_collisions(session, candidates=Candidates(every_version=True)) == ()


async def test_only_newest_active_versions_collide_unless_asked(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", triggers=["find"]),
        agent("b", "1.9.0", triggers=["find"]),
        agent("b", "1.10.0", triggers=["seek"]),
        agent("c", triggers=["find"], is_active=False),
        agent("d", triggers=["find"], status="testing"),
    )

    each = Candidates(every_version=True)
    every = Candidates(every_version=True, include_inactive=True, statuses=None)

    assert await trigger_collisions(session) == ()
    assert told(await trigger_collisions(session, candidates=each)) == [
        ("trigger", "find", ["a", "b"])
    ]
    assert told(await trigger_collisions(session, candidates=every)) == [
        ("trigger", "find", ["a", "b", "c", "d"])
    ]


_phrases = st.lists(st.sampled_from(["a", "A", " a", "b", "B ", "a b", "A  B", "c", "", " "]))


async def test_random_triggers_collide_as_plain_python_tells(session: AsyncSession) -> None:
    sets: list[list[list[str]]] = []

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.lists(_phrases, max_size=5))
    def collect(agents: list[list[str]]) -> None:
        sets.append(agents)

    collect()
    for agents in sets:
        await session.execute(delete(AgentDefinition))
        await store(session, *(agent(f"agent-{n}", triggers=t) for n, t in enumerate(agents)))
        holders = defaultdict(set)
        for number, triggers in enumerate(agents):
            for phrase in triggers:
                holders[" ".join(phrase.lower().split())].add(f"agent-{number}")
        expected = {key: held for key, held in holders.items() if key and len(held) > 1}
        found = told(await trigger_collisions(session))
        assert {key: set(held) for _, key, held in found} == expected
