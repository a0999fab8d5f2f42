"""Agents are found by capabilities, triggers and patterns: the newest versions, the best first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from support.models import new_definition, statements_of

from agentobs.errors import ConfigurationError, InvalidValueError
from agentobs.registry import (
    Candidates,
    MatchedAgent,
    PatternBounds,
    find_agents_by_capabilities,
    find_agents_by_patterns,
    find_agents_by_triggers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

CATASTROPHIC = "(a+)+$"
VICTIM = "a" * 60 + "!"


async def store(session: AsyncSession, *definitions: dict[str, Any]) -> None:
    session.add_all([new_definition(**values) for values in definitions])
    await session.flush()


def agent(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"agent_name": name, "agent_version": version} | more


def names(found: Iterable[MatchedAgent]) -> list[str]:
    return [each.agent_name for each in found]


def versions(found: Iterable[MatchedAgent]) -> list[tuple[str, str]]:
    return [(each.agent_name, each.agent_version) for each in found]


async def test_agents_have_any_or_all_of_some_capabilities(session: AsyncSession) -> None:
    await store(
        session,
        agent("both", capabilities=["debug", "logs", "more"]),
        agent("one", capabilities=["debug"]),
        agent("other", capabilities=["paint"]),
        agent("none", capabilities=[]),
        agent("unknown", capabilities=None),
    )

    either = await find_agents_by_capabilities(session, ["debug", "logs"])
    both = await find_agents_by_capabilities(session, {"debug", "logs"}, match="all")

    assert names(either) == ["both", "one"]
    assert names(both) == ["both"]
    assert [each.matched for each in either] == [("debug", "logs"), ("debug",)]


async def test_capabilities_are_compared_as_they_are_written(session: AsyncSession) -> None:
    await store(session, agent("a", capabilities=["Debug"]))

    assert await find_agents_by_capabilities(session, ["debug"]) == ()


async def test_the_best_performing_comes_first_and_the_unknown_last(session: AsyncSession) -> None:
    def scored(name: str, *scores: float | None) -> dict[str, Any]:
        rate, quality, time_ms = scores
        return agent(
            name,
            capabilities=["x"],
            success_rate=rate,
            quality_score=quality,
            avg_execution_time_ms=None if time_ms is None else int(time_ms),
        )

    await store(
        session,
        scored("7", None, None, None),
        scored("6", None, 1, 1),
        scored("5", 0.8, 1, 1),
        scored("4", 0.9, None, 1),
        scored("3", 0.9, 0.7, None),
        scored("2", 0.9, 0.7, 20),
        scored("1", 0.9, 0.7, 10),
        scored("0", 0.9, 0.8, 30),
    )

    found = await find_agents_by_capabilities(session, ["x"])

    assert names(found) == list("01234567")
    assert (found[0].success_rate, found[0].quality_score) == (0.9, 0.8)
    assert isinstance(found[0].success_rate, float)
    assert names(await find_agents_by_capabilities(session, ["x"], limit=2)) == ["0", "1"]


async def test_only_the_newest_version_stands_for_an_agent(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", "1.9.0", capabilities=["x"], success_rate=1),
        agent("a", "1.10.0", capabilities=["x"], success_rate=0.5),
        agent("a", "1.10.0-rc.1", capabilities=["x"]),
        agent("a", "latest", capabilities=["x"]),
        agent("b", "1.0.0", capabilities=["x"]),
        agent("b", "2.0.0", capabilities=["y"]),
    )

    newest = await find_agents_by_capabilities(session, ["x"])
    each = await find_agents_by_capabilities(
        session, ["x"], candidates=Candidates(every_version=True)
    )

    # b's newest version can't do it, so b can't.
    assert versions(newest) == [("a", "1.10.0")]
    assert len(each) == 5


async def test_inactive_and_other_statuses_take_part_where_asked(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", "1.0.0", capabilities=["x"]),
        agent("a", "2.0.0", capabilities=["x"], is_active=False),
        agent("b", capabilities=["x"], status="testing"),
        agent("c", capabilities=["x"], status="anything"),
    )

    async def asked(**options: Any) -> list[tuple[str, str]]:
        candidates = Candidates(**options)
        return versions(await find_agents_by_capabilities(session, ["x"], candidates=candidates))

    assert await asked() == [("a", "1.0.0")]
    assert await asked(include_inactive=True) == [("a", "2.0.0")]
    assert await asked(statuses=["active", "testing"]) == [("a", "1.0.0"), ("b", "1.0.0")]
    assert [name for name, _ in await asked(statuses=None)] == ["a", "b", "c"]
    assert await asked(statuses=[]) == []


async def test_an_answer_can_not_be_changed(session: AsyncSession) -> None:
    await store(session, agent("a", capabilities=["x"], triggers=None))
    (found,) = await find_agents_by_capabilities(session, ["x"])

    assert found.triggers == ()
    with pytest.raises(ValidationError):
        found.agent_name = "b"  # type: ignore[misc]


@pytest.mark.parametrize("wanted", ["debug", [], [1]])
async def test_what_is_no_list_of_texts_is_refused(session: AsyncSession, wanted: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^capabilities must"):
        await find_agents_by_capabilities(session, wanted)
    with pytest.raises(InvalidValueError, match=r"^phrases must"):
        await find_agents_by_triggers(session, wanted)


async def test_options_that_make_no_sense_are_refused(session: AsyncSession) -> None:
    with pytest.raises(InvalidValueError, match=r"^limit must"):
        await find_agents_by_capabilities(session, ["x"], limit=0)
    with pytest.raises(InvalidValueError, match=r"^match must"):
        await find_agents_by_capabilities(session, ["x"], match="some")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"^least_similarity must"):
        await find_agents_by_triggers(session, ["x"], least_similarity=0)
    with pytest.raises(InvalidValueError, match=r"^candidates\.statuses must"):
        Candidates(statuses="active")
    with pytest.raises(InvalidValueError, match=r"^bounds\.seconds must"):
        PatternBounds(seconds=0)


TRIGGERS = (
    agent("equal", triggers=["find the bug", "Fix it"], success_rate=0.1),
    agent("better", triggers=["find the bug"], success_rate=0.9),
    agent("shouting", triggers=["FIND THE BUG"], success_rate=0.3),
    agent("near", triggers=["nothing", "find a bug"], success_rate=1),
    agent("far", triggers=["paint the wall"]),
    agent("without", triggers=None),
    agent("holed", triggers=[]),
)


async def test_without_trigrams_triggers_are_equal_or_none(session: AsyncSession) -> None:
    await store(session, *TRIGGERS)

    with statements_of(session) as sent:
        found = await find_agents_by_triggers(session, ["find the bug", "Fix it"])

    assert (found.way, sent) == ("overlap", ["SELECT", "SELECT"])
    assert names(found.agents) == ["better", "equal"]
    assert found.agents[1].matched == ("find the bug", "Fix it")
    assert found.agents[0].similarity is None


@pytest.mark.parametrize("schema", ["public", "Of extensions"])
async def test_with_trigrams_similar_triggers_follow_the_equal_ones(
    session: AsyncSession, schema: str
) -> None:
    await install_trigrams(session, schema)
    await store(session, *TRIGGERS)

    with statements_of(session) as sent:
        found = await find_agents_by_triggers(session, ["find the bug", "Fix it"])

    assert (found.way, sent) == ("similarity", ["SELECT", "SELECT"])
    assert names(found.agents) == ["better", "equal", "shouting", "near"]
    assert [each.similarity for each in found.agents[:3]] == [1, 1, 1]
    assert found.agents[3].similarity == pytest.approx(10 / 15, abs=0.2)
    assert found.agents[3].matched == ("find a bug",)


async def test_triggers_must_be_as_similar_as_asked(session: AsyncSession) -> None:
    await install_trigrams(session, "public")
    await store(session, *TRIGGERS)

    strict = await find_agents_by_triggers(session, ["find the bug"], least_similarity=0.95)
    loose = await find_agents_by_triggers(session, ["find the bug"], least_similarity=0.01)

    assert names(strict.agents) == ["better", "equal", "shouting"]
    assert names(loose.agents) == ["better", "equal", "shouting", "near", "far"]


async def test_the_newest_version_is_chosen_before_similarity_is(session: AsyncSession) -> None:
    await install_trigrams(session, "public")
    await store(
        session,
        agent("a", "1.9.0", triggers=["find the bug"]),
        agent("a", "1.10.0", triggers=["find a bug"]),
    )

    found = await find_agents_by_triggers(session, ["find the bug"])

    assert versions(found.agents) == [("a", "1.10.0")]


async def test_trigrams_out_of_reach_are_not_used(session: AsyncSession) -> None:
    await install_trigrams(session, "hidden")
    await store(session, *TRIGGERS)
    await session.execute(text("CREATE ROLE agentobs_matching_reader"))
    await session.execute(text("GRANT SELECT ON agent_definitions TO agentobs_matching_reader"))
    await session.execute(text("SET LOCAL ROLE agentobs_matching_reader"))

    found = await find_agents_by_triggers(session, ["find the bug"])

    assert (found.way, names(found.agents)) == ("overlap", ["better", "equal"])


async def install_trigrams(session: AsyncSession, schema: str) -> None:
    """Install them until the test is over; a server that hasn't got them fails the test."""
    await session.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    await session.execute(text(f'CREATE EXTENSION pg_trgm SCHEMA "{schema}"'))


async def test_patterns_are_found_in_a_request(session: AsyncSession) -> None:
    await store(
        session,
        agent("word", trigger_patterns=[r"\bbug\b", "never", r"f\w+d"], success_rate=0.5),
        agent("better", trigger_patterns=["^find .* bug$"], success_rate=0.9),
        agent("debugger", trigger_patterns=[r"\bdebug\b"]),
        agent("without", trigger_patterns=None),
    )

    with statements_of(session) as sent:
        found = await find_agents_by_patterns(session, "Find the bug")

    assert sent == ["SELECT"]
    assert names(found.agents) == ["better", "word"]
    assert found.agents[1].matched == (r"\bbug\b", r"f\w+d")
    assert found.problems == ()


async def test_the_case_of_letters_counts_where_asked(session: AsyncSession) -> None:
    await store(session, agent("a", trigger_patterns=["ünd"]))

    assert names((await find_agents_by_patterns(session, "ÜND")).agents) == ["a"]
    assert (await find_agents_by_patterns(session, "ÜND", ignore_case=False)).agents == ()


async def test_a_broken_pattern_is_told_and_others_are_tried(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", trigger_patterns=["(unclosed", "bug"]),
        agent("b", trigger_patterns=["(unclosed", "(?L)x", "(" * 500, "a{2,1}"]),
    )

    found = await find_agents_by_patterns(session, "a bug")

    assert names(found.agents) == ["a"]
    told = [(each.agent_name, each.pattern) for each in found.problems]
    assert told[:2] == [("a", "(unclosed"), ("b", "(unclosed")]
    assert len(told) == 5
    assert all(each.reason.startswith("is no regular expression: ") for each in found.problems)


async def test_a_catastrophic_pattern_holds_up_nobody(session: AsyncSession) -> None:
    await store(
        session,
        agent("a", trigger_patterns=[CATASTROPHIC, "a!"]),
        agent("b", trigger_patterns=["(a|aa)+$"]),
    )
    asked = asyncio.create_task(
        find_agents_by_patterns(session, VICTIM, bounds=PatternBounds(pattern_seconds=0.2))
    )
    # Of the event loop: it goes on while the patterns are tried.
    turns = 0
    while not (await asyncio.wait([asked], timeout=0.01))[0]:
        turns += 1

    found = await asked
    assert names(found.agents) == ["a"]
    assert [each.pattern for each in found.problems] == [CATASTROPHIC, "(a|aa)+$"]
    assert {each.reason for each in found.problems} == {"takes longer than 0.2 s on this text"}
    assert turns > 5


async def test_all_patterns_together_have_a_bound(session: AsyncSession) -> None:
    patterns = [f"(a+)+${n}" for n in range(20)]
    await store(session, agent("a", trigger_patterns=patterns))
    bounds = PatternBounds(pattern_seconds=0.1, seconds=0.3)

    found = await find_agents_by_patterns(session, VICTIM, bounds=bounds)

    reasons = [each.reason.partition(" ")[0] for each in found.problems]
    assert len(reasons) == 20
    assert 1 <= reasons.count("takes") <= 4
    assert found.problems[-1].reason.startswith("was not tried")


@pytest.mark.parametrize("request_text", ["", "\x00", "\ud800", "\n" * 1000, "x" * 100_000])
async def test_any_text_may_be_asked(session: AsyncSession, request_text: str) -> None:
    await store(session, agent("a", trigger_patterns=["^", "{", "[[a]"]))

    found = await find_agents_by_patterns(session, request_text)

    assert (names(found.agents), found.problems) == (["a"], ())


async def test_a_process_that_hangs_is_ended_and_what_it_told_counts(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text(
        "import signal\nprint('true', flush=True)\nprint('fal', end='', flush=True)\n"
        "signal.pause()\n"
    )
    monkeypatch.setattr("agentobs.registry.patterns._WORKER", hanging)
    monkeypatch.setattr("agentobs.registry.patterns._GRACE_SECONDS", 1)
    await store(session, agent("a", trigger_patterns=["first", "second", "third"]))

    found = await find_agents_by_patterns(session, "x", bounds=PatternBounds(seconds=1))

    assert [each.matched for each in found.agents] == [("first",)]
    assert [each.pattern for each in found.problems] == ["second", "third"]


async def test_an_interpreter_that_does_not_start_is_named(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentobs.registry.patterns.get_executable", lambda: "/nowhere/python")
    await store(session, agent("a", trigger_patterns=["x"]))

    with pytest.raises(ConfigurationError, match="set_executable"):
        await find_agents_by_patterns(session, "x")


async def test_without_patterns_no_process_is_started(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentobs.registry.patterns.get_executable", lambda: "/nowhere/python")

    found = await find_agents_by_patterns(session, "x")

    assert (found.agents, found.problems) == ((), ())
