from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import pytest
from support.recorders import events, strict_recorder

from agentobs import Confidence, Transformation
from agentobs.errors import InvalidValueError
from agentobs.keys import instant_of

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

NOON = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)


class WrongKeyError(Exception):
    """An error of a host."""


class SilentError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no words")


async def rows_by_agent(database: DatabaseSettings) -> dict[str, dict[str, Any]]:
    return {row["target_agent"]: row for row in await events(database)}


async def only_row(recorder: Recorder, database: DatabaseSettings) -> dict[str, Any]:
    await recorder.abarrier()
    [row] = await events(database)
    return row


async def test_a_run_is_one_row_written_when_it_ends(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    session = uuid4()
    before = datetime.now(UTC)
    with recorder.transformation(
        target_agent="agent-debug",
        source_agent="agent-main",
        reason="a bug",
        user_request="find it",
        context_snapshot={"task": "debug", "n": 1},
        session_id=session,
        routing_confidence=0.5,
        routing_strategy="explicit",
    ) as run:
        await recorder.abarrier()
        assert await events(agentobs_database) == []
        run.transformed()
        run.initialized()
        run.quality_score = 0.92

    row = await only_row(recorder, agentobs_database)
    durations = [row.pop(f"{name}_duration_ms") for name in ("transformation", "initialization")]
    total = row.pop("total_execution_duration_ms")
    assert sum(durations) <= total + 1
    started, completed = row.pop("started_at"), row.pop("completed_at")
    assert before <= started <= completed <= datetime.now(UTC) + timedelta(seconds=1)
    assert abs((completed - started) / timedelta(milliseconds=1) - total) <= 1
    assert row == {
        "id": run.id,
        "event_type": "transformation_complete",
        "correlation_id": run.correlation_id,
        "session_id": session,
        "source_agent": "agent-main",
        "target_agent": "agent-debug",
        "transformation_reason": "a bug",
        "context_snapshot": {"task": "debug", "n": 1},
        "context_keys": ["task", "n"],
        "context_size_bytes": len('{"task":"debug","n":1}'),
        "user_request": "find it",
        "routing_confidence": Decimal("0.5"),
        "routing_strategy": "explicit",
        "success": True,
        "error_message": None,
        "error_type": None,
        "quality_score": Decimal("0.92"),
        "agent_definition_id": None,
        "parent_event_id": None,
    }
    assert recorder.statistics().written == {"transformation": 1}


async def test_a_run_of_a_decision_has_its_workflow_confidence_and_strategy(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision(strategy="fuzzy", confidence=Confidence(trigger=1))
    with recorder.transformation(target_agent="agent-debug", decision=decision):
        pass

    row = await only_row(recorder, agentobs_database)
    assert row["correlation_id"] == decision.correlation_id
    assert (row["routing_strategy"], row["routing_confidence"]) == ("fuzzy", Decimal("0.4"))


async def test_an_exception_makes_a_run_a_failed_one_and_goes_on(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    error = WrongKeyError("no such key")
    with (
        pytest.raises(WrongKeyError) as caught,
        recorder.transformation(target_agent="agent-debug"),
    ):
        raise error

    assert caught.value is error
    row = await only_row(recorder, agentobs_database)
    assert (row["event_type"], row["success"]) == ("transformation_failed", False)
    assert (row["error_type"], row["error_message"]) == ("WrongKeyError", "no such key")


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_but_ends_the_block_is_a_failure_too(
    recorder: Recorder, agentobs_database: DatabaseSettings, kind: type[BaseException]
) -> None:
    with pytest.raises(kind), recorder.transformation(target_agent="agent-debug"):
        raise kind

    row = await only_row(recorder, agentobs_database)
    assert (row["success"], row["error_type"]) == (False, kind.__name__)


async def test_a_task_that_is_cancelled_leaves_a_run_that_failed(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    is_in = asyncio.Event()

    async def work() -> None:
        async with recorder.transformation(target_agent="agent-debug"):
            is_in.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await is_in.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    row = await only_row(recorder, agentobs_database)
    assert (row["success"], row["error_type"]) == (False, "CancelledError")


async def test_any_error_of_a_host_is_told_as_far_as_it_can_be(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    long_named = type("E" * 300, (Exception,), {})
    errors = {
        "silent": SilentError(),
        "huge": ValueError("x" * 10_000_000),
        "binary": ValueError("a\x00b\ud800"),
        "long": long_named("why"),
        "bare": ValueError(),
    }
    for agent, error in errors.items():
        with suppress(Exception), recorder.transformation(target_agent=agent):
            raise error
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert {row["success"] for row in rows.values()} == {False}
    assert rows["silent"]["error_type"] == "SilentError"
    assert "shown" in rows["silent"]["error_message"]
    assert len(rows["huge"]["error_message"]) < 100_000
    assert "10000000 characters" in rows["huge"]["error_message"]
    assert rows["binary"]["error_message"] == "a\ufffdb\ufffd"
    assert rows["long"]["error_type"] == "E" * 100
    assert rows["bare"]["error_message"] == ""


async def test_a_run_can_fail_without_an_exception(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="agent-debug") as run:
        run.fail("Rejected", "by the reviewer")

    row = await only_row(recorder, agentobs_database)
    assert (row["event_type"], row["success"]) == ("transformation_failed", False)
    assert (row["error_type"], row["error_message"]) == ("Rejected", "by the reviewer")


async def test_what_a_run_fails_with_may_be_any_value(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="object") as run:
        run.fail(WrongKeyError, {"code": 7})  # type: ignore[arg-type]
    with recorder.transformation(target_agent="silent") as run:
        run.fail(SilentError(), SilentError())  # type: ignore[arg-type]
    with recorder.transformation(target_agent="after"):
        pass
    await recorder.abarrier(10)

    rows = await rows_by_agent(agentobs_database)
    assert rows["object"]["error_message"] == "{'code': 7}"
    assert rows["silent"]["success"] is False
    assert rows["after"]["success"] is True


async def test_a_result_that_does_not_fit_is_refused_where_it_is_set(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="agent-debug") as run:
        run.quality_score = 0.5
        with pytest.raises(InvalidValueError, match="quality_score"):
            run.quality_score = 1.5
        with pytest.raises(InvalidValueError, match="initialization_duration_ms"):
            run.initialization_duration_ms = -1
        assert run.quality_score == 0.5

    assert (await only_row(recorder, agentobs_database))["quality_score"] == Decimal("0.5")


async def test_the_error_of_a_host_goes_on_though_the_recorder_was_closed_meanwhile(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()

    run = recorder.transformation(target_agent="agent-debug")
    run.__enter__()
    recorder.close()
    error = WrongKeyError("no such key")

    # Nothing is raised, so it is the error that goes on.
    run.__exit__(WrongKeyError, error, None)

    assert "closed" in "".join(error.__notes__)


async def test_a_start_that_is_given_is_the_instant_of_row_and_key(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="outer"):
        # Its key lies before that of its parent.
        with recorder.transformation(target_agent="early", started_at=NOON):
            pass
        with recorder.transformation(
            target_agent="late", started_at=datetime.max.replace(tzinfo=UTC)
        ):
            pass
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert rows["early"]["started_at"] == instant_of(rows["early"]["id"]) == NOON
    assert NOON <= rows["early"]["completed_at"] < NOON + timedelta(hours=1)
    assert rows["early"]["parent_event_id"] == rows["outer"]["id"]
    assert rows["late"]["success"] is True


async def test_a_run_that_was_measured_elsewhere_is_recorded_whole(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="outer"):
        key = recorder.record(
            Transformation(
                target_agent="agent-debug",
                started_at=NOON,
                success=False,
                error_type="Timeout",
                error_message="too slow",
                total_execution_duration_ms=1500,
            )
        )
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    row = rows["agent-debug"]
    assert (row["id"], row["parent_event_id"]) == (key, rows["outer"]["id"])
    assert (row["event_type"], row["error_type"]) == ("transformation_failed", "Timeout")
    assert row["completed_at"] == NOON + timedelta(seconds=1.5)


async def test_what_goes_on_elsewhere_is_recorded_as_begun(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    key = recorder.record(Transformation(target_agent="agent-debug", started_at=NOON))

    row = await only_row(recorder, agentobs_database)
    assert (row["id"], row["event_type"]) == (key, "transformation_start")
    assert (row["success"], row["completed_at"]) == (None, None)
    assert recorder.statistics().written == {"transformation": 1}


async def test_what_can_not_be_set_on_a_run_is_refused_by_its_name(recorder: Recorder) -> None:
    with (
        pytest.raises(InvalidValueError, match=r"run\.success can't be set"),
        recorder.transformation(target_agent="a") as run,
    ):
        run.success = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("success", True),
        ("success", False),
        ("completed_at", NOON),
        ("total_execution_duration_ms", 0),
        ("error_type", "Timeout"),
        ("error_message", ""),
    ],
)
def test_a_record_that_has_ended_makes_no_block(
    recorder: Recorder, field: str, value: object
) -> None:
    record = Transformation(**{"target_agent": "a", field: value})

    with pytest.raises(InvalidValueError, match=r"recorder\.record\(\)") as caught:
        recorder.transformation(record)
    with pytest.raises(InvalidValueError):
        recorder.transformation(**{"target_agent": "a", field: value})  # type: ignore[arg-type]

    assert caught.value.column == f"Transformation.{field}"


async def test_a_record_of_a_block_may_have_results_that_are_known(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    record = Transformation(
        target_agent="a",
        success=None,
        quality_score=0.5,
        transformation_duration_ms=1,
        initialization_duration_ms=2,
    )
    with recorder.transformation(record):
        pass

    row = await only_row(recorder, agentobs_database)
    assert (row["success"], row["quality_score"]) == (True, Decimal("0.5"))
    assert (row["transformation_duration_ms"], row["initialization_duration_ms"]) == (1, 2)
