from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from support.recorders import decisions, events, strict_recorder

from agentobs import Alternative, Confidence, Recorder, RoutingDecision
from agentobs.errors import ConfigurationError, InvalidValueError, RecorderClosedError
from agentobs.keys import instant_of
from agentobs.recorder import Timings

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

NOON = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)


async def test_a_decision_is_stored_with_all_that_was_said_of_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    correlation = uuid4()
    decision = recorder.routing_decision(
        RoutingDecision(
            selected_agent="agent-ü",
            strategy="fuzzy",
            confidence=Confidence(trigger=0.9, context=0.7, capability=0.8, historical=0.6),
            alternatives=[
                Alternative(agent="agent-b", confidence=0.5, reason="close"),
                Alternative(agent="agent-c"),
            ],
            timings_us=Timings(cache_lookup=1, trigger_matching=2, confidence_scoring=3, total=7),
            cache_hit=False,
            cache_key="key",
            cache_age_seconds=60,
            user_request="find the bug",
            context={"b": 1, "a": 2},
            correlation_id=correlation,
            measured_at=NOON,
        )
    )
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    assert row == {
        "id": decision.id,
        "metric_type": "routing_decision",
        "correlation_id": correlation,
        "user_request_hash": hashlib.sha256(b"find the bug").hexdigest(),
        "context_hash": hashlib.sha256(b'{"a":2,"b":1}').hexdigest(),
        "selected_agent": "agent-ü",
        "selection_strategy": "fuzzy",
        "confidence_score": Decimal("0.79"),
        "alternative_agents": [
            {"agent": "agent-b", "confidence": 0.5, "reason": "close"},
            {"agent": "agent-c", "confidence": None, "reason": None},
        ],
        "alternatives_count": 2,
        "cache_lookup_us": 1,
        "trigger_matching_us": 2,
        "confidence_scoring_us": 3,
        "total_routing_time_us": 7,
        "trigger_confidence": Decimal("0.9"),
        "context_confidence": Decimal("0.7"),
        "capability_confidence": Decimal("0.8"),
        "historical_confidence": Decimal("0.6"),
        "cache_hit": False,
        "cache_key": "key",
        "cache_age_seconds": 60,
        "selection_validated": None,
        "actual_success": None,
        "actual_quality_score": None,
        "prediction_error": None,
        "feedback_provided": False,
        "feedback_type": None,
        "feedback_details": None,
        "measured_at": NOON,
        "validated_at": None,
    }


async def test_a_decision_may_say_nothing_at_all(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    before = datetime.now(UTC)
    decision = recorder.routing_decision()
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    known = {name: value for name, value in row.items() if value is not None}
    assert before <= known.pop("measured_at") <= datetime.now(UTC)
    assert known == {
        "id": decision.id,
        "metric_type": "routing_decision",
        "correlation_id": decision.correlation_id,
        "alternatives_count": 0,
        "feedback_provided": False,
    }


async def test_the_key_of_a_decision_holds_its_instant(recorder: Recorder) -> None:
    decision = recorder.routing_decision(measured_at=NOON)

    assert decision.id.version == 7
    assert instant_of(decision.id) == NOON


async def test_a_decision_tells_what_a_host_goes_on_with(recorder: Recorder) -> None:
    decision = recorder.routing_decision(
        selected_agent="agent-debug", strategy="fuzzy", confidence=Confidence(trigger=0.5)
    )

    assert (decision.selected_agent, decision.strategy) == ("agent-debug", "fuzzy")
    assert decision.confidence_score == 0.2
    assert isinstance(decision.id, UUID)


async def test_one_record_may_be_recorded_many_times(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    record = RoutingDecision(selected_agent="agent-debug")
    made = {recorder.routing_decision(record).id for _ in range(3)}
    await recorder.abarrier()

    assert {row["id"] for row in await decisions(agentobs_database)} == made
    assert len(made) == 3


async def test_many_decisions_are_stored_once_each_whatever_the_size_of_the_flush(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, flush_rows=7, delivery="block") as recorder:
        made = [recorder.routing_decision(cache_age_seconds=number).id for number in range(1000)]

    assert [row["id"] for row in await decisions(agentobs_database)] == sorted(made)


async def test_decisions_of_distant_months_go_in_one_batch(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    instants = [NOON - timedelta(days=400), NOON, NOON + timedelta(days=4000)]
    for instant in reversed(instants):
        recorder.routing_decision(measured_at=instant)
    await recorder.abarrier()

    assert [row["measured_at"] for row in await decisions(agentobs_database)] == instants


async def test_a_decision_within_a_run_belongs_to_the_workflow_of_the_run(
    recorder: Recorder,
) -> None:
    with recorder.transformation(target_agent="agent-debug") as run:
        assert recorder.routing_decision().correlation_id == run.correlation_id
        assert recorder.routing_decision(correlation_id=UUID(int=1)).correlation_id == UUID(int=1)

    assert recorder.routing_decision().correlation_id != run.correlation_id


async def test_decisions_outside_of_any_workflow_have_one_of_their_own(recorder: Recorder) -> None:
    made = [recorder.routing_decision() for _ in range(3)]

    assert len({decision.correlation_id for decision in made}) == 3
    assert [decision.correlation_id for decision in made] == [decision.id for decision in made]


async def test_what_was_measured_elsewhere_is_recorded_whole(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    key = recorder.record(RoutingDecision(selected_agent="agent-debug", measured_at=NOON))
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    assert (row["id"], row["measured_at"]) == (key, NOON)


async def test_threads_record_at_once_without_losing_any(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    def work() -> None:
        for _ in range(50):
            recorder.routing_decision()

    with strict_recorder(agentobs_database, tmp_path, delivery="block") as recorder:
        threads = [Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(await decisions(agentobs_database)) == 64 * 50


async def test_a_recorder_that_was_not_started_starts_with_its_first_record(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path)
    recorder.routing_decision()

    assert recorder.close().is_complete
    assert len(await decisions(agentobs_database)) == 1


async def test_a_recorder_that_is_closed_takes_nothing_until_it_is_started_again(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path)
    with recorder:
        recorder.routing_decision(selected_agent="first")
    with pytest.raises(RecorderClosedError, match=r"start\(\)"):
        recorder.routing_decision(selected_agent="between")
    with recorder:
        recorder.routing_decision(selected_agent="second")

    found = [row["selected_agent"] for row in await decisions(agentobs_database)]
    assert found == ["first", "second"]


async def test_two_recorders_of_a_process_write_side_by_side(
    recorder: Recorder, agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    async with strict_recorder(agentobs_database, tmp_path) as other:
        for each in (recorder, other) * 5:
            each.routing_decision()
    assert other.statistics().written == {"decision": 5}
    await recorder.abarrier()

    assert len(await decisions(agentobs_database)) == 10


def test_a_recorder_without_an_address_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AGENTOBS_DATABASE_URL", raising=False)

    with pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL"):
        Recorder(folder=tmp_path).start()


async def test_a_decision_that_does_not_fit_is_refused_where_it_is_made(
    recorder: Recorder,
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        recorder.routing_decision(selected_agent="a", confidence_score=1.5)

    assert caught.value.column == "RoutingDecision.confidence_score"
    assert recorder.statistics().refused == {}


async def test_texts_that_no_column_holds_are_made_fit(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    recorder.routing_decision(
        selected_agent="a\x00b",
        strategy="\ud800",
        alternatives=[Alternative(agent="c\x00", reason="\udfff")],
        user_request="\ud800",
        context={"\x00": "\ud800"},
    )
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    assert (row["selected_agent"], row["selection_strategy"]) == ("a\ufffdb", "\ufffd")
    [alternative] = row["alternative_agents"]
    assert (alternative["agent"], alternative["reason"]) == ("c\ufffd", "\ufffd")
    assert recorder.statistics().sanitised == 4
    assert await events(agentobs_database) == []
