"""Many threads and event loops that use one recorder, and how it ends under them."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from support.embedded import wait_until
from support.pools import eventually, onlooker
from support.recorders import decisions, events, strict_recorder
from support.relay import relay

from agentobs.errors import BarrierTimeoutError, RecorderClosedError
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.spool import describe_spools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from support.pools import Onlooker
    from support.relay import Relay

    from agentobs import DatabaseSettings, Recorder

THREADS = 64
RECORDS = 40
DELIVERIES = ("drop", "block", "spool")


@pytest_asyncio.fixture
async def wire(agentobs_database: DatabaseSettings) -> AsyncIterator[Relay]:
    async with relay(agentobs_database) as passing:
        yield passing


@pytest_asyncio.fixture
async def eye(agentobs_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(agentobs_database) as found:
        yield found


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_a_storm_of_64_threads_is_counted_and_stored_exactly(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    recorder = strict_recorder(
        agentobs_database, tmp_path, delivery=delivery, buffer_rows=100_000, flush_rows=500
    )
    gate = threading.Barrier(THREADS)

    def storm() -> list[UUID]:
        gate.wait()
        return [_record(recorder) for _ in range(RECORDS)]

    with recorder, ThreadPoolExecutor(THREADS) as pool:
        recorded = [task.result() for task in [pool.submit(storm) for _ in range(THREADS)]]

    keys = sorted(key for keys in recorded for key in keys)
    metrics, runs = await decisions(agentobs_database), await events(agentobs_database)
    assert [row["id"] for row in metrics] == keys
    assert {row["actual_success"] for row in metrics} == {True}
    assert len(runs) == len(keys) == THREADS * RECORDS
    exactly = dict.fromkeys(("decision", "transformation", "outcome"), len(keys))
    statistics = recorder.statistics()
    assert statistics.accepted == statistics.written == exactly
    assert (statistics.pending, statistics.completeness) == (0, 1.0)


async def test_a_small_buffer_that_blocks_64_threads_loses_none_of_their_records(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(
        agentobs_database, tmp_path, delivery="block", buffer_rows=50, flush_rows=25
    )
    with recorder, ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(_decide, recorder) for _ in range(THREADS * 10)]
        keys = sorted(task.result() for task in tasks)

    assert [row["id"] for row in await decisions(agentobs_database)] == keys


async def test_barriers_in_many_threads_return_when_their_own_records_are_committed(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    def record_and_look(_: int) -> None:
        for _ in range(5):
            keys = {_decide(recorder) for _ in range(20)}
            recorder.barrier(30)
            committed = asyncio.run(decisions(agentobs_database))
            assert keys <= {row["id"] for row in committed}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record_and_look, range(8)))


async def test_several_event_loops_share_a_recorder(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def record() -> set[UUID]:
        keys = {_decide(recorder) for _ in range(RECORDS)}
        await recorder.abarrier(30)
        return keys

    def run(_: int) -> set[UUID]:
        return asyncio.run(record())

    with ThreadPoolExecutor(4) as pool:
        keys = set.union(*pool.map(run, range(4)))

    assert {row["id"] for row in await decisions(agentobs_database)} == keys


async def test_tasks_that_are_cancelled_lose_nothing_that_was_accepted(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    accepted: list[UUID] = []

    async def work() -> None:
        while True:
            async with recorder.transformation(target_agent="agent-debug") as run:
                accepted.append(run.id)
                recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
                await recorder.abarrier(30)

    tasks = [asyncio.create_task(work()) for _ in range(20)]
    await eventually(lambda: _is_at_least(accepted, 50))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await recorder.abarrier(30)

    runs = {row["id"]: row for row in await events(agentobs_database)}
    assert runs.keys() == set(accepted)
    cut_off = [row["error_type"] for row in runs.values() if row["success"] is False]
    assert cut_off == ["CancelledError"] * 20
    assert len(await decisions(agentobs_database)) == len(accepted)


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_what_other_threads_record_while_it_is_closed_is_stored_or_refused(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    accepted: list[UUID] = []
    recorder = strict_recorder(
        agentobs_database, tmp_path, delivery=delivery, buffer_rows=100_000
    ).start()

    def record_until_refused(_: int) -> None:
        while True:
            try:
                accepted.append(_decide(recorder))
            except RecorderClosedError:
                return

    with ThreadPoolExecutor(9) as pool:
        refused = [pool.submit(record_until_refused, number) for number in range(8)]
        wait_until(lambda: len(accepted) > 200)
        report = pool.submit(recorder.close).result()
        for each in refused:
            each.result()

    assert report.is_complete
    assert [row["id"] for row in await decisions(agentobs_database)] == sorted(accepted)


async def test_threads_that_close_it_at_once_do_not_disturb_each_other(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path, flush_interval=3600.0).start()
    keys = {_decide(recorder) for _ in range(RECORDS)}

    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: recorder.close(), range(8)))

    assert all(report.is_complete for report in reports)
    assert {row["id"] for row in await decisions(agentobs_database)} == keys


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_a_database_that_hangs_holds_up_no_close_and_what_is_left_is_kept(
    agentobs_database: DatabaseSettings, wire: Relay, tmp_path: Path, delivery: str
) -> None:
    recorder = strict_recorder(
        wire.settings, tmp_path, delivery=delivery, flush_rows=20, flush_interval=3600.0
    ).start()
    before = {str(_decide(recorder)) for _ in range(RECORDS)}
    await eventually(lambda: _has_written(recorder, RECORDS))
    # In the middle of what it says over its connection.
    wire.on_passage = wire.hold_up
    keys = {str(_decide(recorder)) for _ in range(RECORDS)}
    report = await recorder.aclose(timeout=0.2)

    assert report.left == {"decision": RECORDS}
    statistics = recorder.statistics()
    is_spooled = delivery == "spool"
    assert statistics.abandoned == ({} if is_spooled else {"decision": RECORDS})
    assert statistics.spooled == ({"decision": RECORDS} if is_spooled else {})
    assert statistics.pending == 0
    wire.on_passage = lambda: None
    if delivery == "spool":
        (spool,) = describe_spools(tmp_path / "spools")
        assert (report.spool, report.dead_letters) == (spool.path, None)
        wire.go_on()
        async with strict_recorder(wire.settings, tmp_path, delivery="spool"):
            await asyncio.to_thread(wait_until, lambda: not spool.path.exists())
        found = {str(row["id"]) for row in await decisions(agentobs_database)}
        assert found == before | keys
    else:
        letters = list(read_dead_letters(tmp_path / "dead-letters"))
        assert {letter["id"] for letter in letters} == keys
        assert len(letters) == RECORDS
        assert report.dead_letters is not None
        assert report.spool is None


async def test_a_barrier_that_a_hanging_database_holds_up_ends_in_time_and_says_how_many_wait(
    wire: Relay, tmp_path: Path
) -> None:
    recorder = strict_recorder(wire.settings, tmp_path).start()
    wire.hold_up()
    _decide(recorder)
    with pytest.raises(BarrierTimeoutError, match="not committed yet: 1") as caught:
        await recorder.abarrier(0.1)
    wire.go_on()
    report = await recorder.aclose()

    assert caught.value.pending == 1
    assert report.is_complete


async def test_a_barrier_does_not_call_committed_what_a_close_had_to_leave(
    wire: Relay, tmp_path: Path
) -> None:
    recorder = strict_recorder(wire.settings, tmp_path, flush_interval=3600.0).start()
    wire.hold_up()
    _decide(recorder)
    waiting = asyncio.create_task(recorder.abarrier())
    await eventually(lambda: _has_passed(wire))
    await recorder.aclose(timeout=0.1)

    with pytest.raises(BarrierTimeoutError):
        await waiting


async def test_a_run_that_the_database_refuses_is_one_dead_letter_however_long_it_goes_on(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path, announce_after=0.0).start()
    unknown = uuid4()
    with recorder.transformation(target_agent="agent-debug", agent_definition_id=unknown):
        wait_until(lambda: recorder.statistics().flushes >= 1 and _letters(tmp_path) == 1)
        for _ in range(3):
            _decide(recorder)
            await recorder.abarrier(30)
        during = _letters(tmp_path)
    await recorder.aclose()

    assert during == 1
    assert recorder.statistics().dead_lettered == {"transformation": 1}
    assert len(await decisions(agentobs_database)) == 3


async def test_a_barrier_waits_for_a_run_that_waits_for_its_parent_from_elsewhere(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    elsewhere = strict_recorder(agentobs_database, tmp_path, flush_interval=3600.0)
    recorder = strict_recorder(agentobs_database, tmp_path, announce_after=0.0)
    async with elsewhere, recorder:
        with elsewhere.transformation(target_agent="agent-outer") as outer:
            context = elsewhere.context()
        with recorder.attach(context), recorder.transformation(target_agent="agent-inner") as run:
            # Its start can't be stored yet.
            wait_until(lambda: recorder.statistics().flushes >= 1)
        with pytest.raises(BarrierTimeoutError):
            await recorder.abarrier(0.3)
        await elsewhere.abarrier(30)
        await recorder.abarrier(30)
        rows = {row["id"]: row for row in await events(agentobs_database)}

    assert rows[run.id]["parent_event_id"] == outer.id
    assert rows[run.id]["success"] is True


@pytest.mark.parametrize("delivery", ["drop", "spool"])
def test_a_signal_handler_may_record_in_the_middle_of_a_record(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path, delivery=delivery).start()
    handled: list[UUID] = []

    def handle(*_: object) -> None:
        # It enters no block: Python 3.11 collects garbage within ContextVar.set, hypothesis has
        # a callback there, and a handler that runs in that and sets the variable ends the process.
        handled.append(_decide(recorder))
        # Once more from its end only: handlers would else interrupt each other without end.
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        recorded = [_record(recorder) for _ in range(1000)]
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    recorder.close()

    assert handled
    assert recorder.statistics().written["decision"] == len(recorded) + len(handled)


def _record(recorder: Recorder) -> UUID:
    decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
    with recorder.transformation(target_agent="agent-debug", decision=decision):
        pass
    recorder.outcome(decision, success=True)
    return decision.id


def _decide(recorder: Recorder) -> UUID:
    return recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy").id


def _letters(folder: Path) -> int:
    return len(list(read_dead_letters(folder / "dead-letters")))


async def _is_at_least(found: list[UUID], number: int) -> bool:
    return len(found) >= number


async def _has_passed(wire: Relay) -> bool:
    return wire.passages > 0


async def _has_written(recorder: Recorder, number: int) -> bool:
    return sum(recorder.statistics().written.values()) >= number
