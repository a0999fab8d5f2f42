from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.models import CANARY
from support.recorders import PATIENCE, decisions, events, strict_recorder

from agentobs import Recorder, RoutingDecision, Transformation
from agentobs.errors import ConfigurationError, InvalidValueError, RecorderClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings

    Call = Callable[[Recorder], object]


@pytest.fixture
def lenient(agentobs_database: DatabaseSettings, tmp_path: Path) -> Iterator[Recorder]:
    with strict_recorder(agentobs_database, tmp_path, lenient=True) as recorder:
        yield recorder


def run(recorder: Recorder, **values: Any) -> None:
    with recorder.transformation(**values) as block:
        block.quality_score = 0.5


CALLS: dict[str, Call] = {
    "decision": lambda recorder: recorder.routing_decision(confidence_score=CANARY),  # type: ignore[arg-type]
    "no decision": lambda recorder: recorder.routing_decision(CANARY),  # type: ignore[arg-type]
    "transformation": lambda recorder: run(recorder, target_agent="a", session_id=CANARY),
    "no agent": run,
    "no transformation": lambda recorder: recorder.transformation(CANARY).__enter__(),  # type: ignore[arg-type]
    "ended": lambda recorder: run(recorder, target_agent="a", error_message=CANARY),
    "no workflow": lambda recorder: run(recorder, target_agent="a", correlation_id=UUID(int=0)),
    "decision of a run": lambda recorder: run(recorder, target_agent="a", decision=CANARY),
    "record": lambda recorder: recorder.record(CANARY),  # type: ignore[arg-type]
    "outcome": lambda recorder: recorder.outcome(uuid4(), quality_score=CANARY),  # type: ignore[arg-type]
    "outcome of nothing": lambda recorder: recorder.outcome(CANARY),
    "feedback": lambda recorder: recorder.feedback(uuid4(), CANARY * 20),
    "details": lambda recorder: recorder.feedback(uuid4(), "positive", CANARY),  # type: ignore[arg-type]
    "context": lambda recorder: recorder.attach(CANARY).__enter__(),
}
KINDS = {
    "decision": 2,
    "transformation": 8,
    "outcome": 2,
    "feedback": 2,
}


async def test_what_can_not_be_taken_is_counted_by_kind_and_told_once(
    lenient: Recorder, agentobs_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    for call in CALLS.values():
        call(lenient)
    lenient.routing_decision(selected_agent="good")
    await lenient.abarrier()

    statistics = lenient.statistics()
    assert statistics.refused == KINDS
    assert statistics.accepted == {"decision": 1}
    assert statistics.completeness == 1 / 15
    messages = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "RoutingDecision.confidence_score" in messages[0]
    assert "counted from now on" in messages[0]
    reasons = [message.partition("counted from now on: ")[2] for message in messages]
    assert len(set(reasons)) == len(reasons) > 1
    assert CANARY not in caplog.text
    [row] = await decisions(agentobs_database)
    assert row["selected_agent"] == "good"


@pytest.mark.parametrize("name", CALLS)
def test_what_can_not_be_taken_is_told_where_it_is_made_if_the_recorder_is_strict(
    name: str, agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_shared_database, tmp_path)

    with pytest.raises(InvalidValueError) as caught:
        CALLS[name](recorder)

    # The line of the call stands in the traceback, but with the name of the value alone.
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert recorder.statistics().refused == {}


async def test_a_host_goes_on_with_a_decision_of_which_there_is_no_row(
    lenient: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with lenient.transformation(target_agent="outer") as outer:
        decision = lenient.routing_decision(selected_agent="agent-debug", cache_age_seconds=-1)
        assert decision.selected_agent == "agent-debug"
        assert decision.correlation_id == outer.correlation_id
        assert (decision.strategy, decision.confidence_score) == (None, None)
        with lenient.transformation(target_agent="agent-debug", decision=decision) as run:
            pass
    await lenient.abarrier()

    rows = {row["id"]: row for row in await events(agentobs_database)}
    assert rows[run.id]["parent_event_id"] == outer.id
    assert await decisions(agentobs_database) == []


async def test_what_is_said_of_a_refused_decision_is_refused_and_holds_up_no_barrier(
    lenient: Recorder, agentobs_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    decision = lenient.routing_decision(selected_agent="a", confidence=0.8)  # type: ignore[arg-type]
    for _ in range(2):
        lenient.outcome(decision, success=True)
        lenient.feedback(decision, "positive")
    lenient.routing_decision(selected_agent="good")
    await lenient.abarrier(PATIENCE)

    statistics = lenient.statistics()
    assert statistics.refused == {"decision": 1, "outcome": 2, "feedback": 2}
    assert (statistics.pending, statistics.held_rows, statistics.unmatched) == (0, 0, {})
    assert caplog.text.count("an outcome was refused") == 1
    assert caplog.text.count("its decision was refused") == 1
    [row] = await decisions(agentobs_database)
    assert row["actual_success"] is None


@pytest.mark.parametrize("is_lenient", [True, False])
async def test_what_is_said_of_a_dropped_decision_is_dropped_with_it(
    is_lenient: bool, agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"lenient": is_lenient, "buffer_rows": 1, "flush_interval": 3600}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        recorder.routing_decision(selected_agent="kept")
        decision = recorder.routing_decision(selected_agent="dropped")
        await recorder.abarrier(PATIENCE)
        recorder.outcome(decision, success=True)
        recorder.feedback(decision, "positive")
        await recorder.abarrier(PATIENCE)

    statistics = recorder.statistics()
    assert statistics.dropped == {"decision": 1, "outcome": 1, "feedback": 1}
    assert (statistics.refused, statistics.unmatched) == ({}, {})
    assert decision.selected_agent == "dropped"
    assert [row["selected_agent"] for row in await decisions(agentobs_database)] == ["kept"]


@pytest.mark.parametrize("delivery", ["drop", "block", "spool"])
@pytest.mark.parametrize("limit", ["5", float("nan"), True])
async def test_a_timeout_that_is_no_number_is_refused_by_whatever_waits(
    delivery: str, limit: Any, agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_shared_database, tmp_path, delivery=delivery) as recorder:
        with pytest.raises(InvalidValueError, match="timeout must be a number of seconds"):
            recorder.barrier(limit)
        with pytest.raises(InvalidValueError, match="timeout must be a number of seconds"):
            await recorder.abarrier(limit)
        with pytest.raises(InvalidValueError, match="timeout must be a number of seconds"):
            recorder.close(limit)
        recorder.barrier(PATIENCE)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("no decision", "give selected_agent=…"),
        ("no transformation", "give target_agent=…"),
    ],
)
def test_an_agent_that_stands_where_a_record_does_is_told_its_field(
    name: str, fix: str, agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValueError, match=fix):
        CALLS[name](strict_recorder(agentobs_shared_database, tmp_path))


async def test_what_runs_in_a_run_that_was_not_taken_belongs_to_the_one_around_it(
    lenient: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with lenient.transformation(target_agent="outer") as outer:
        async with lenient.transformation(target_agent="x" * 256) as refused:
            refused.quality_score = 0.5
            refused.transformed()
            with lenient.transformation(target_agent="inner"):
                pass
    await lenient.abarrier()

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert rows.keys() == {"outer", "inner"}
    assert rows["inner"]["parent_event_id"] == outer.id
    assert refused.correlation_id == outer.correlation_id


async def test_an_exception_leaves_a_run_that_was_not_taken(lenient: Recorder) -> None:
    with pytest.raises(ZeroDivisionError), lenient.transformation(target_agent="x" * 256):
        raise ZeroDivisionError


async def test_a_result_that_does_not_fit_is_left_out_and_counted(
    lenient: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with lenient.transformation(target_agent="agent") as run:
        run.quality_score = 1.5
        run.initialization_duration_ms = 7
    await lenient.abarrier()

    [row] = await events(agentobs_database)
    assert (row["quality_score"], row["initialization_duration_ms"]) == (None, 7)
    assert lenient.statistics().sanitised == 1


async def test_a_recorder_that_is_closed_counts_what_it_does_not_take(
    lenient: Recorder, agentobs_database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    lenient.close()
    decision = lenient.routing_decision(selected_agent="late")
    with lenient.transformation(target_agent="late", decision=decision):
        pass
    lenient.outcome(decision, success=True)
    lenient.feedback(decision, "positive")
    assert lenient.record(Transformation(target_agent="late")) is None
    assert lenient.record(RoutingDecision()) is None

    refused = {"decision": 2, "transformation": 2, "outcome": 1, "feedback": 1}
    assert lenient.statistics().refused == refused
    assert caplog.text.count("the recorder is closed") == 1
    assert await decisions(agentobs_database) == await events(agentobs_database) == []


def test_a_recorder_that_is_closed_tells_so_if_it_is_strict(
    agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_shared_database, tmp_path)
    recorder.start().close()

    calls: list[Call] = [
        lambda recorder: recorder.routing_decision(),
        lambda recorder: run(recorder, target_agent="late"),
        lambda recorder: recorder.record(Transformation(target_agent="late")),
        lambda recorder: recorder.outcome(uuid4()),
        lambda recorder: recorder.feedback(uuid4(), "positive"),
        lambda recorder: recorder.barrier(),
    ]
    for call in calls:
        with pytest.raises(RecorderClosedError):
            call(recorder)


def test_without_an_address_a_host_goes_on_and_the_reason_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AGENTOBS_DATABASE_URL", raising=False)
    recorder = Recorder(folder=tmp_path)

    for _ in range(3):
        recorder.routing_decision(selected_agent="agent")

    assert recorder.statistics().refused == {"decision": 3}
    assert caplog.text.count("AGENTOBS_DATABASE_URL") == 1
    with pytest.raises(ConfigurationError):
        recorder.start()


async def test_the_spool_that_can_not_be_made_stops_no_host(
    agentobs_database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    options = {"lenient": True, "delivery": "spool"}
    recorder = strict_recorder(agentobs_database, tmp_path / "file", **options)

    run(recorder, target_agent="agent")

    assert recorder.statistics().refused == {"transformation": 1}
    assert "file" in caplog.text


def test_nothing_of_a_run_is_told_by_its_repr(
    agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_shared_database, tmp_path)
    run = recorder.transformation(
        target_agent="agent",
        reason=CANARY,
        user_request=CANARY,
        context_snapshot={CANARY: CANARY},
    )

    assert "agent" in repr(run)
    assert CANARY not in repr(run)
