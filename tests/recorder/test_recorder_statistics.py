from __future__ import annotations

import logging
import re
from collections import Counter
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from support.embedded import wait_until
from support.held_up import held_up
from support.pools import eventually
from support.recorders import PATIENCE, decisions, events, strict_recorder

from agentobs import Recorder, RoutingDecision, Transformation
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.statistics import SETTLED, Counters, Statistics

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

SELDOM = 3600.0


def open_by_kind(statistics: Statistics) -> Counter[str]:
    """Return what was accepted of each kind and is in no other number."""
    number = Counter(statistics.accepted)
    for name in SETTLED:
        number.subtract(getattr(statistics, name))
    return number


def assert_balanced(statistics: Statistics) -> None:
    found = open_by_kind(statistics)
    assert min(found.values(), default=0) >= 0
    assert sum(found.values()) == statistics.pending


def record_everything(recorder: Recorder) -> None:
    """Record of each kind what is stored, what is refused, and what waits in vain."""
    for _ in range(3):
        decision = recorder.routing_decision(confidence_score=0.5)
        recorder.outcome(decision, quality_score=0.5)
        recorder.feedback(decision, "positive")
        with recorder.transformation(target_agent="outer", decision=decision):
            recorder.record(Transformation(target_agent="inner", success=True))
    recorder.outcome(uuid4(), success=True)
    recorder.feedback(uuid4(), "negative")
    recorder.record(Transformation(target_agent="orphan", parent_event_id=uuid4(), success=True))
    recorder.record(Transformation(target_agent="poison", agent_definition_id=uuid4()))


@pytest.mark.parametrize("delivery", ["drop", "block", "spool"])
async def test_what_was_accepted_is_in_one_of_the_numbers_at_any_time(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    options = {"delivery": delivery, "parent_wait": 0.2, "outcome_wait": 0.2}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        async with held_up(agentobs_database) as pause:
            for _ in range(5):
                record_everything(recorder)
                assert_balanced(recorder.statistics())
            await pause.writer_waits()
            assert_balanced(recorder.statistics())
        record_everything(recorder)

        async def is_settled() -> bool:
            assert_balanced(recorder.statistics())
            return recorder.statistics().pending == 0

        await eventually(is_settled)

    found = recorder.statistics()
    assert found.accepted == {"decision": 18, "outcome": 24, "feedback": 24, "transformation": 48}
    assert found.written == {"decision": 18, "outcome": 18, "feedback": 18, "transformation": 42}
    assert found.unmatched == {"outcome": 6, "feedback": 6}
    assert found.dead_lettered == {"transformation": 6}
    assert found.orphaned == 6
    assert_balanced(found)
    assert found.completeness == pytest.approx(96 / 114)
    assert len(await decisions(agentobs_database)) == 18
    assert len(await events(agentobs_database)) == 42


async def test_what_is_left_at_the_end_is_counted_and_kept(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        decision = recorder.routing_decision()
        await pause.writer_waits()
        recorder.outcome(decision, success=True)
        recorder.routing_decision()
        recorder.record(Transformation(target_agent="agent", success=True))
        report = await recorder.aclose(0)

    left = {"decision": 2, "outcome": 1, "transformation": 1}
    assert report.left == left
    assert not report.is_complete
    statistics = recorder.statistics()
    assert statistics.abandoned == left
    assert (statistics.pending, statistics.completeness) == (0, 0)
    assert_balanced(statistics)
    assert report.dead_letters is not None
    letters = Counter(each["kind"] for each in read_dead_letters(report.dead_letters.parent))
    assert letters == left


@pytest.mark.parametrize("delivery", ["drop", "block"])
async def test_what_finds_no_room_is_counted_exactly_by_kind(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    options = {"delivery": delivery, "block_timeout": 0.01, "buffer_rows": 4}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        async with held_up(agentobs_database) as pause:
            recorder.routing_decision(selected_agent="on the way")
            await pause.writer_waits()
            kept = [recorder.routing_decision().id for _ in range(3)]
            with recorder.transformation(target_agent="agent"):
                pass
            for _ in range(5):
                recorder.routing_decision(selected_agent="dropped")
            for _ in range(4):
                with recorder.transformation(target_agent="dropped"):
                    pass
            for _ in range(3):
                recorder.outcome(uuid4(), success=True)
            for _ in range(2):
                recorder.feedback(uuid4(), "positive")
            assert recorder.record(Transformation(target_agent="dropped")) is None
            assert recorder.record(RoutingDecision(selected_agent="dropped")) is None
            statistics = recorder.statistics()

    dropped = {"decision": 6, "transformation": 5, "outcome": 3, "feedback": 2}
    assert statistics.dropped == dropped
    assert statistics.accepted == {"decision": 4, "transformation": 1}
    assert statistics.buffer_rows == 4
    assert statistics.completeness == 5 / 21
    rows = await decisions(agentobs_database)
    assert {row["selected_agent"] for row in rows} == {"on the way", None}
    assert kept[0] in {row["id"] for row in rows}
    assert recorder.statistics().written == {"decision": 4, "transformation": 1}


async def test_bytes_bound_the_buffer_too(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, buffer_bytes=10_000) as recorder:
        async with held_up(agentobs_database) as pause:
            recorder.routing_decision()
            await pause.writer_waits()
            for field in ("reason", "user_request", "error_message"):
                large = {field: "x" * 6_000, "target_agent": "agent", "success": True}
                recorder.record(Transformation(**large))
            statistics = recorder.statistics()

    assert statistics.dropped == {"transformation": 2}
    assert 6_000 < statistics.buffer_bytes < 10_000


async def test_who_blocks_goes_on_when_there_is_room_again(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    def work() -> None:
        for _ in range(20):
            recorder.routing_decision()

    options = {"delivery": "block", "buffer_rows": 3}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        async with held_up(agentobs_database) as pause:
            recorder.routing_decision()
            await pause.writer_waits()
            host = Thread(target=work)
            host.start()
            wait_until(lambda: recorder.statistics().buffer_rows == 3)
            assert host.is_alive()
            assert recorder.statistics().accepted == {"decision": 4}
        wait_until(lambda: not host.is_alive())

    assert recorder.statistics().dropped == {}
    assert len(await decisions(agentobs_database)) == 21


async def test_who_blocks_is_let_go_when_the_recorder_is_closed(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"delivery": "block", "buffer_rows": 1, "lenient": True}
    recorder = strict_recorder(agentobs_database, tmp_path, **options).start()
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        recorder.routing_decision()
        host = Thread(target=recorder.routing_decision, daemon=True)
        host.start()
        await recorder.aclose(0)
        host.join(PATIENCE)

    assert not host.is_alive()
    statistics = recorder.statistics()
    assert statistics.accepted == {"decision": 2}
    away = Counter(statistics.dropped) + Counter(statistics.refused)
    assert away == {"decision": 1}


async def test_flushes_are_counted_with_their_time(recorder: Recorder) -> None:
    recorder.routing_decision()
    await recorder.abarrier()

    statistics = recorder.statistics()
    assert statistics.flushes == sum(statistics.flush_latencies.values()) == 1
    assert 0 < statistics.flush_seconds_longest <= statistics.flush_seconds
    assert (statistics.buffer_rows, statistics.buffer_bytes) == (0, 0)
    assert (statistics.retried, statistics.reconnected) == (0, 0)


async def test_a_recorder_that_was_started_again_counts_from_the_start(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        recorder.routing_decision()
    assert recorder.statistics().written == {"decision": 1}

    with recorder:
        assert recorder.statistics().accepted == {}


async def test_what_happened_is_logged_once_in_an_interval(
    agentobs_database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentobs.recorder")
    with strict_recorder(agentobs_database, tmp_path, report_interval=0.1) as recorder:
        for _ in range(3):
            recorder.routing_decision(selected_agent="secret\x00")
        wait_until(lambda: " accepted" in caplog.text)

    line = next(each for each in caplog.messages if " accepted" in each)
    assert re.match(r"in 0\.\d+ s: ", line)
    assert "3 accepted" in line
    assert "% complete" in line
    assert "secret" not in caplog.text


async def test_without_an_interval_nothing_is_logged(
    agentobs_database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentobs.recorder")
    with strict_recorder(agentobs_database, tmp_path, report_interval=0) as recorder:
        recorder.routing_decision()
        await recorder.abarrier()

    assert caplog.messages == []


def statistics_of(**by_kind: dict[str, int]) -> Statistics:
    counters = Counters()
    for name, counts in by_kind.items():
        counters.by_kind[name].update(counts)
    return counters.snapshot({})


@pytest.mark.parametrize(
    ("counts", "completeness"),
    [
        ({}, 1),
        ({"accepted": {"decision": 4}}, 1),
        ({"accepted": {"decision": 4}, "written": {"decision": 4}}, 1),
        ({"accepted": {"decision": 3}, "dropped": {"outcome": 1}}, 0.75),
        ({"accepted": {"decision": 3}, "refused": {"outcome": 1}}, 0.75),
        ({"accepted": {"decision": 4}, "dead_lettered": {"decision": 1}}, 0.75),
        ({"accepted": {"decision": 4}, "lost": {"decision": 4}}, 0),
    ],
)
def test_the_report_says_how_complete_its_data_is(
    counts: dict[str, Any], completeness: float
) -> None:
    assert statistics_of(**counts).completeness == completeness


def test_the_news_are_what_was_counted_since() -> None:
    before = statistics_of(accepted={"decision": 2}, written={"decision": 1})
    now = statistics_of(accepted={"decision": 5, "outcome": 1}, written={"decision": 1})

    news = now.since(before)

    assert news.accepted == {"decision": 3, "outcome": 1}
    assert news.written == {"decision": 0}
    assert news.pending == now.pending == 5
    assert news.has_counted
    assert not now.since(now).has_counted
