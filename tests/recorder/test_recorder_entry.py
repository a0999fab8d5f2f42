"""Where a run stands that is entered elsewhere than it was made."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.recorders import events, strict_recorder
from support.shell import environment

from agentobs import Confidence, Transformation
from agentobs.keys import instant_of

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

NOON = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)
WORKFLOW = UUID("4bf92f3577b34da6a3ce929d0e0e4736")


async def rows_by_agent(
    recorder: Recorder, database: DatabaseSettings
) -> dict[str, dict[str, Any]]:
    await recorder.abarrier()
    return {row["target_agent"]: row for row in await events(database)}


def pass_the_time(seconds: float = 0.01) -> datetime:
    """Return an instant that is some time after the call."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    while (now := datetime.now(UTC)) < end:
        pass
    return now


async def test_a_run_belongs_to_the_block_that_it_is_entered_in(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    session = uuid4()
    made = recorder.transformation(target_agent="inner")
    with recorder.transformation(target_agent="outer", session_id=session) as outer, made:
        decision = recorder.routing_decision()

    row = (await rows_by_agent(recorder, agentobs_database))["inner"]
    assert row["id"] == made.id
    assert row["parent_event_id"] == outer.id
    assert row["correlation_id"] == made.correlation_id == outer.correlation_id
    assert (row["session_id"], row["source_agent"]) == (session, "outer")
    assert decision.correlation_id == outer.correlation_id


async def test_a_run_does_not_belong_to_the_block_that_it_was_made_in(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="outer") as outer:
        made = recorder.transformation(target_agent="alone")
    with made:
        pass

    row = (await rows_by_agent(recorder, agentobs_database))["alone"]
    assert (row["parent_event_id"], row["source_agent"]) == (None, None)
    assert row["correlation_id"] != outer.correlation_id


async def test_a_run_starts_when_it_is_entered(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    run = recorder.transformation(target_agent="agent", context_snapshot={"a": 1})
    entered = pass_the_time()
    with run:
        pass

    row = (await rows_by_agent(recorder, agentobs_database))["agent"]
    assert row["started_at"] == run.started_at == instant_of(run.id)
    assert entered <= row["started_at"] <= row["completed_at"]


async def test_the_context_is_that_of_the_call_wherever_the_run_is_entered(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    context = {"task": "a\x00b"}
    request = "x" * 70_000
    made = recorder.transformation(
        target_agent="inner", context_snapshot=context, user_request=request, reason="why"
    )
    context["task"] = "changed"
    with recorder.transformation(target_agent="outer") as outer, made:
        pass

    row = (await rows_by_agent(recorder, agentobs_database))["inner"]
    assert row["parent_event_id"] == outer.id
    assert row["context_snapshot"] == {"task": "a\ufffdb", "_agentobs": {"sanitised": 1}}
    assert row["context_keys"] == ["task"]
    assert "70000 characters" in row["user_request"]
    assert row["transformation_reason"] == "why"
    statistics = recorder.statistics()
    assert (statistics.sanitised, statistics.cut) == (1, 1)


async def test_the_hook_sees_a_context_once_wherever_the_run_is_entered(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    seen: list[object] = []

    def redact(value: object) -> object:
        seen.append(value)
        return {"kept": 1} if isinstance(value, dict) else "…"

    with strict_recorder(agentobs_database, tmp_path, redact=redact) as recorder:
        made = recorder.transformation(
            target_agent="inner", context_snapshot={"token": 1}, user_request="secret"
        )
        with recorder.transformation(target_agent="outer"), made:
            pass
        row = (await rows_by_agent(recorder, agentobs_database))["inner"]

    assert len(seen) == 2
    assert (row["context_snapshot"], row["context_keys"]) == ({"kept": 1}, ["kept"])
    assert row["user_request"] == "…"


async def test_what_the_record_and_the_decision_say_wins_wherever_the_run_is_entered(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision(strategy="fuzzy", confidence=Confidence(trigger=1))
    decided = recorder.transformation(target_agent="decided", decision=decision)
    given = recorder.transformation(
        target_agent="given", correlation_id=WORKFLOW, started_at=NOON, source_agent="somebody"
    )
    pass_the_time()
    with recorder.transformation(target_agent="outer") as outer:
        with decided:
            pass
        with given:
            pass

    rows = await rows_by_agent(recorder, agentobs_database)
    assert rows["decided"]["correlation_id"] == outer.correlation_id
    assert rows["decided"]["routing_strategy"] == "fuzzy"
    assert rows["given"]["correlation_id"] == WORKFLOW
    assert rows["given"]["started_at"] == instant_of(given.id) == NOON
    assert rows["given"]["source_agent"] == "somebody"
    assert rows["decided"]["parent_event_id"] == outer.id
    assert rows["given"]["parent_event_id"] is None


async def test_who_asks_for_the_id_before_the_block_settles_where_the_run_stands(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    made = recorder.transformation(target_agent="inner")
    assert "id=" not in repr(made)
    asked = pass_the_time()
    key, workflow = made.id, made.correlation_id
    settled = pass_the_time()
    with recorder.transformation(target_agent="outer") as outer, made:
        assert str(key) in repr(made)

    row = (await rows_by_agent(recorder, agentobs_database))["inner"]
    assert (row["id"], row["correlation_id"]) == (key, workflow)
    assert row["parent_event_id"] is None
    assert workflow != outer.correlation_id
    assert asked <= row["started_at"] <= settled


@pytest.mark.parametrize("is_announced", [False, True])
async def test_a_run_that_fails_elsewhere_than_it_was_made_has_one_row(
    agentobs_database: DatabaseSettings, tmp_path: Path, is_announced: bool
) -> None:
    options = {"announce_after": 0 if is_announced else 600, "delivery": "spool"}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        made = recorder.transformation(target_agent="inner")
        with recorder.transformation(target_agent="outer") as outer:
            with suppress(ZeroDivisionError), made:
                with recorder.transformation(target_agent="innermost"):
                    pass
                raise ZeroDivisionError("0")
            assert recorder.context() is not None

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert len(rows) == len(await events(agentobs_database)) == 3
    assert rows["inner"]["error_type"] == "ZeroDivisionError"
    assert rows["inner"]["parent_event_id"] == outer.id
    assert rows["innermost"]["parent_event_id"] == made.id


def test_a_record_is_taken_by_its_type_before_the_block(recorder: Recorder) -> None:
    run = recorder.transformation(Transformation(target_agent="agent", quality_score=0.5))

    assert run.quality_score == 0.5


FORKS = """
import os, sys
from agentobs import Recorder
recorder = Recorder(folder=sys.argv[1], flush_interval=0.05, lenient=False)
run = recorder.transformation(target_agent="agent", context_snapshot={"a": 1})
child = os.fork()
with run:
    pass
recorder.close()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""


async def test_a_run_that_was_made_before_a_fork_is_one_in_each_process(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    subprocess.run(command, check=True, env=environment(agentobs_database))

    rows = await events(agentobs_database)
    assert [row["success"] for row in rows] == [True, True]
    assert len({row["id"] for row in rows}) == len({row["correlation_id"] for row in rows}) == 2
    assert [row["context_snapshot"] for row in rows] == [{"a": 1}] * 2
