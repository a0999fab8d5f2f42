from __future__ import annotations

import asyncio
import resource
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
from support.embedded import wait_until
from support.held_up import held_up
from support.recorders import PATIENCE, connected, decisions, stored_ids, strict_recorder

from agentobs import RouterPerformanceMetric
from agentobs.errors import BarrierTimeoutError, RecorderError
from agentobs.recorder.writing.statements import existing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

SELDOM = 3600.0


async def test_what_was_recorded_before_a_barrier_is_committed_after_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, flush_interval=SELDOM) as recorder:
        first = recorder.routing_decision().id
        recorder.barrier()
        assert await stored_ids(agentobs_database, RouterPerformanceMetric) == {first}

        second = recorder.routing_decision().id
        await recorder.abarrier(PATIENCE)
        assert await stored_ids(agentobs_database, RouterPerformanceMetric) == {first, second}


async def test_a_barrier_has_all_of_many_batches_behind_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"flush_interval": SELDOM, "flush_rows": 10, "delivery": "block"}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        made = {recorder.routing_decision().id for _ in range(105)}
        await recorder.abarrier(PATIENCE)

        assert await stored_ids(agentobs_database, RouterPerformanceMetric) == made


def test_a_barrier_with_nothing_before_it_ends(recorder: Recorder) -> None:
    recorder.barrier(PATIENCE)
    recorder.barrier(PATIENCE)


async def test_a_barrier_waits_for_no_run_that_goes_on(recorder: Recorder) -> None:
    with recorder.transformation(target_agent="agent"):
        await recorder.abarrier(PATIENCE)


async def test_barriers_of_many_tasks_each_have_their_own_rows_behind_them(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def work() -> None:
        async with connected(agentobs_database) as connection:
            for _ in range(15):
                key = recorder.routing_decision().id
                await recorder.abarrier()
                assert await existing(connection, RouterPerformanceMetric, [key]) == {key}
                await connection.rollback()

    await asyncio.gather(*(work() for _ in range(8)))


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_barrier_that_waits_in_vain_tells_how_much_is_pending(
    recorder: Recorder, agentobs_database: DatabaseSettings, is_async: bool
) -> None:
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        for _ in range(2):
            recorder.routing_decision()
        waits = recorder.abarrier(0.05) if is_async else asyncio.to_thread(recorder.barrier, 0.05)
        with pytest.raises(BarrierTimeoutError, match="not committed yet: 3") as caught:
            await waits
    assert caught.value.pending == 3
    assert isinstance(caught.value, TimeoutError)

    await recorder.abarrier()
    assert len(await decisions(agentobs_database)) == 3


async def test_a_barrier_that_is_cancelled_loses_nothing(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async with held_up(agentobs_database) as pause:
        key = recorder.routing_decision().id
        barrier = asyncio.create_task(recorder.abarrier())
        await pause.writer_waits()
        barrier.cancel()
        with pytest.raises(asyncio.CancelledError):
            await barrier
    await recorder.abarrier()

    assert await stored_ids(agentobs_database, RouterPerformanceMetric) == {key}


async def test_a_barrier_that_is_cancelled_holds_up_the_end_of_no_event_loop(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def serve() -> None:
        barrier = asyncio.create_task(recorder.abarrier())
        await asyncio.sleep(0)
        barrier.cancel()
        await asyncio.gather(barrier, return_exceptions=True)

    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        service = Thread(target=lambda: asyncio.run(serve()), daemon=True)
        service.start()
        await asyncio.to_thread(service.join, PATIENCE)
        assert not service.is_alive()


async def test_who_waits_at_a_barrier_is_told_when_the_recorder_is_closed_with_rows_left(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    told: list[BaseException] = []
    waits = Event()

    def wait() -> None:
        waits.set()
        try:
            recorder.barrier()
        except RecorderError as error:
            told.append(error)

    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        waiting = Thread(target=wait, daemon=True)
        waiting.start()
        assert waits.wait(PATIENCE)
        report = await recorder.aclose(0)
        wait_until(lambda: not waiting.is_alive())

    assert report.left == {"decision": 1}
    assert len(told) == 1


async def test_a_barrier_of_a_spool_waits_for_no_commit_of_what_came_after_a_full_disk(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, delivery="spool") as recorder:
        recorder.routing_decision()
        with full_disk():
            recorder.routing_decision()
        recorder.barrier(PATIENCE)
        assert recorder.statistics().unspooled == 1
        assert len(await decisions(agentobs_database)) == 2
        async with held_up(agentobs_database) as pause:
            recorder.routing_decision()
            await pause.writer_waits()
            recorder.routing_decision()
            await asyncio.to_thread(recorder.barrier, PATIENCE)
            await recorder.abarrier(PATIENCE)

    assert len(await decisions(agentobs_database)) == 4


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
