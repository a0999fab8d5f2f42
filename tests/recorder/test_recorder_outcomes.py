from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from support.held_up import held_up
from support.pools import eventually
from support.recorders import decisions, events, strict_recorder

from agentobs import Confidence, Decision, Recorder
from agentobs.errors import InvalidValueError
from agentobs.recorder.dead_letters.writing import read_dead_letters

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from agentobs import DatabaseSettings

# The writer comes only when it is asked.
SELDOM = 3600.0


async def row_of(database: DatabaseSettings, key: UUID) -> dict[str, Any]:
    [row] = [row for row in await decisions(database) if row["id"] == key]
    return row


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("selection_validated", "actual_success", "actual_quality_score", "prediction_error")
    return tuple(row[name] for name in names)


def fed_back(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["feedback_provided"], row["feedback_type"], row["feedback_details"]


@pytest.mark.parametrize("is_flushed", [False, True], ids=["in the buffer", "stored"])
async def test_an_outcome_goes_into_its_decision(
    agentobs_database: DatabaseSettings, tmp_path: Path, is_flushed: bool
) -> None:
    with strict_recorder(agentobs_database, tmp_path, flush_interval=SELDOM) as recorder:
        before = datetime.now(UTC)
        decision = recorder.routing_decision(confidence=Confidence(trigger=1, context=1))
        if is_flushed:
            await recorder.abarrier()
        recorder.outcome(decision, success=True, quality_score=0.92)
        await recorder.abarrier()

    row = await row_of(agentobs_database, decision.id)
    assert told(row) == (True, True, Decimal("0.92"), Decimal("-0.22"))
    assert before <= row["validated_at"] <= datetime.now(UTC)
    assert recorder.statistics().written == {"decision": 1, "outcome": 1}


async def test_an_outcome_that_comes_while_its_decision_is_on_the_way_finds_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async with held_up(agentobs_database) as pause:
        decision = recorder.routing_decision(confidence_score=0.5)
        await pause.writer_waits()
        recorder.outcome(decision, success=False, quality_score=0.25)
        recorder.feedback(decision, "negative")
    await recorder.abarrier()

    row = await row_of(agentobs_database, decision.id)
    assert told(row) == (True, False, Decimal("0.25"), Decimal("0.25"))
    assert fed_back(row) == (True, "negative", None)


@pytest.mark.parametrize("of_first", [False, True])
@pytest.mark.parametrize("between", [False, True])
async def test_the_last_call_wins_wherever_the_row_is(
    agentobs_database: DatabaseSettings, tmp_path: Path, of_first: bool, between: bool
) -> None:
    with strict_recorder(agentobs_database, tmp_path, flush_interval=SELDOM) as recorder:
        decision = recorder.routing_decision(confidence_score=0.5)
        if of_first:
            await recorder.abarrier()
        recorder.outcome(decision, success=False, quality_score=0.25)
        recorder.feedback(decision, "correction", {"should_have_been": "agent-testing"})
        if between:
            await recorder.abarrier()
        recorder.outcome(decision, success=True)
        recorder.outcome(decision, quality_score=0.75)
        recorder.feedback(decision, "positive")
        await recorder.abarrier()

    row = await row_of(agentobs_database, decision.id)
    assert told(row) == (True, True, Decimal("0.75"), Decimal("-0.25"))
    assert fed_back(row) == (True, "positive", None)
    assert recorder.statistics().written == {"decision": 1, "outcome": 3, "feedback": 2}


async def test_feedback_is_stored_with_what_was_said(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision()
    recorder.feedback(decision, "correction", {"should_have_been": "agent-ü", "bad": "\x00"})
    await recorder.abarrier()

    row = await row_of(agentobs_database, decision.id)
    details = {"should_have_been": "agent-ü", "bad": "\ufffd", "_agentobs": {"sanitised": 1}}
    assert fed_back(row) == (True, "correction", details)
    assert told(row) == (None, None, None, None)
    assert recorder.statistics().sanitised == 1


async def test_a_decision_is_known_by_its_id_in_any_form(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    made = [recorder.routing_decision() for _ in range(3)]
    forms: list[Decision | UUID | str] = [made[0], made[1].id, str(made[2].id)]
    for given in forms:
        recorder.outcome(given, success=True)
        recorder.feedback(given, "positive")
    await recorder.abarrier()

    for row in await decisions(agentobs_database):
        assert (row["actual_success"], row["feedback_type"]) == (True, "positive")


@pytest.mark.parametrize("wrong", ["no id", "", 7, None])
async def test_what_is_no_decision_is_refused(recorder: Recorder, wrong: Any) -> None:
    with pytest.raises(InvalidValueError, match="Decision, or its id"):
        recorder.outcome(wrong, success=True)
    with pytest.raises(InvalidValueError, match="Decision, or its id"):
        recorder.feedback(wrong, "positive")


async def test_an_outcome_out_of_bounds_is_refused(recorder: Recorder) -> None:
    decision = recorder.routing_decision()

    with pytest.raises(InvalidValueError, match="quality_score"):
        recorder.outcome(decision, quality_score=1.5)
    with pytest.raises(InvalidValueError, match="feedback_type"):
        recorder.feedback(decision, "x" * 51)


async def test_many_outcomes_are_stored_by_few_statements(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    made = [recorder.routing_decision(confidence_score=1.0) for _ in range(500)]
    await recorder.abarrier()
    before = recorder.statistics().flushes
    for number, decision in enumerate(reversed(made)):
        recorder.outcome(decision, success=True, quality_score=number / 1000)
    await recorder.abarrier()

    assert recorder.statistics().flushes - before < 50
    for row in await decisions(agentobs_database):
        assert row["prediction_error"] == 1 - row["actual_quality_score"]
        assert row["actual_success"] is True


async def test_an_outcome_waits_for_the_decision_of_another_recorder(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path, flush_interval=SELDOM) as late,
        strict_recorder(agentobs_database, tmp_path) as early,
    ):
        decision = late.routing_decision(confidence_score=0.5)
        early.outcome(decision.id, success=False)
        early.outcome(decision.id, success=True, quality_score=0.5)
        early.feedback(decision.id, "positive")

        async def has_tried() -> bool:
            return early.statistics().flushes > 2

        await eventually(has_tried)
        assert early.statistics().pending == 3
        await late.abarrier()
        await early.abarrier()

    row = await row_of(agentobs_database, decision.id)
    assert told(row) == (True, True, Decimal("0.5"), Decimal(0))
    assert fed_back(row) == (True, "positive", None)
    assert early.statistics().written == {"outcome": 2, "feedback": 1}


async def test_an_outcome_without_a_decision_is_kept_as_a_dead_letter(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    unknown = uuid4()
    with strict_recorder(agentobs_database, tmp_path, outcome_wait=0.1) as recorder:
        recorder.outcome(unknown, success=True, quality_score=0.5)
        recorder.outcome(unknown, success=False)
        recorder.feedback(unknown, "negative", {"why": "slow"})
        await recorder.abarrier()
        statistics = recorder.statistics()

    assert statistics.unmatched == {"outcome": 2, "feedback": 1}
    assert (statistics.pending, statistics.completeness) == (0, 0)
    letters = {each["kind"]: each for each in read_dead_letters(tmp_path / "dead-letters")}
    assert {each["id"] for each in letters.values()} == {str(unknown)}
    assert letters["outcome"]["row"]["actual_success"] is False
    assert letters["outcome"]["row"]["actual_quality_score"] == 0.5
    assert letters["feedback"]["row"]["feedback_type"] == "negative"
    assert "no such decision" in letters["outcome"]["reason"]


@pytest.mark.parametrize("is_flushed", [False, True], ids=["in the buffer", "stored"])
async def test_an_outcome_of_a_run_finds_no_decision(
    agentobs_database: DatabaseSettings, tmp_path: Path, is_flushed: bool
) -> None:
    options = {"outcome_wait": 0, "flush_interval": SELDOM}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        with recorder.transformation(target_agent="agent-debug") as run:
            pass
        if is_flushed:
            await recorder.abarrier()
        recorder.outcome(run.id, success=False)

    assert recorder.statistics().unmatched == {"outcome": 1}
    [row] = await events(agentobs_database)
    assert row["success"] is True
