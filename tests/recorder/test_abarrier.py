from __future__ import annotations

import asyncio
import gc
import threading
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import pytest
from support.held_up import held_up
from support.pools import eventually
from support.recorders import PATIENCE, decisions, strict_recorder

from agentobs.errors import BarrierTimeoutError, SpoolError
from agentobs.recorder.spool import folder as spool_folder
from agentobs.recorder.spool import spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

MANY = 1_000


@pytest.fixture
def spooling(agentobs_database: DatabaseSettings, tmp_path: Path) -> Iterator[Recorder]:
    with strict_recorder(agentobs_database, tmp_path, delivery="spool") as recorder:
        yield recorder


class HeldDisk:
    """A disk that syncs nothing until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_asked, self.may_go_on = Event(), Event()
        monkeypatch.setattr(spool, "sync_path", self._sync)

    def _sync(self, path: Path) -> None:
        self.is_asked.set()
        assert self.may_go_on.wait(PATIENCE)
        spool_folder.sync_path(path)


@pytest.fixture
def held_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldDisk]:
    disk = HeldDisk(monkeypatch)
    yield disk
    disk.may_go_on.set()


async def in_turn(task: asyncio.Task[Any]) -> None:
    """Let a task that was just made come to where it waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}


async def test_a_thousand_tasks_wait_at_barriers_without_a_thread_for_each(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        before = threading.active_count()
        waiting = [asyncio.create_task(recorder.abarrier()) for _ in range(MANY)]
        await in_turn(waiting[-1])
        assert threading.active_count() == before
    await asyncio.gather(*waiting)

    assert len(await decisions(agentobs_database)) == 1


async def test_a_thousand_tasks_wait_for_the_disk_without_a_thread_for_each(
    spooling: Recorder, held_disk: HeldDisk
) -> None:
    spooling.routing_decision()
    before = threading.active_count()
    waiting = [asyncio.create_task(spooling.abarrier()) for _ in range(MANY)]
    await in_turn(waiting[-1])
    assert threading.active_count() == before
    held_disk.may_go_on.set()

    await asyncio.gather(*waiting)


async def test_barriers_that_are_cancelled_leave_nothing_behind(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    waiters: WeakSet[asyncio.Future[Any]] = WeakSet()
    loop = asyncio.get_running_loop()
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        create_future = loop.create_future

        def watched() -> asyncio.Future[Any]:
            waiters.add(future := create_future())
            return future

        loop.create_future = watched  # type: ignore[method-assign]
        waiting = [asyncio.create_task(recorder.abarrier(PATIENCE)) for _ in range(10)]
        await in_turn(waiting[-1])
        assert len(waiters) >= 10
        loop.create_future = create_future  # type: ignore[method-assign]
        await cancelled(*waiting)
        del waiting
        # The loop's last turn still holds them.
        await asyncio.sleep(0)
        gc.collect()
        assert not waiters


async def test_a_disk_that_is_slow_holds_up_no_event_loop_and_not_its_end(
    spooling: Recorder, held_disk: HeldDisk
) -> None:
    async def serve() -> None:
        task = asyncio.create_task(spooling.abarrier())
        await in_turn(task)
        await cancelled(task)

    spooling.routing_decision()
    service = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    service.start()
    await asyncio.to_thread(service.join, PATIENCE)

    assert not service.is_alive()
    assert held_disk.is_asked.is_set()
    assert not held_disk.may_go_on.is_set()


async def test_a_barrier_waits_for_a_slow_disk_as_long_as_it_was_told(
    spooling: Recorder, held_disk: HeldDisk
) -> None:
    spooling.routing_decision()

    with pytest.raises(BarrierTimeoutError):
        await spooling.abarrier(0.05)

    held_disk.may_go_on.set()
    await spooling.abarrier(PATIENCE)


async def test_a_barrier_tells_that_the_disk_refuses(
    spooling: Recorder, monkeypatch: pytest.MonkeyPatch, agentobs_database: DatabaseSettings
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # What the database has, needs no disk any more.
    async with held_up(agentobs_database):
        monkeypatch.setattr(spool, "sync_path", refuse)
        spooling.routing_decision()
        for _ in range(2):
            with pytest.raises(SpoolError, match="Permission denied"):
                await spooling.abarrier(PATIENCE)
        monkeypatch.undo()
        await spooling.abarrier(PATIENCE)


@pytest.mark.parametrize("delivery", ["drop", "spool"])
async def test_tasks_of_many_event_loops_wait_at_the_same_time(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    async def record() -> None:
        for _ in range(20):
            recorder.routing_decision()
            await asyncio.gather(*(recorder.abarrier(PATIENCE) for _ in range(5)))

    with strict_recorder(agentobs_database, tmp_path, delivery=delivery) as recorder:
        services = [Thread(target=lambda: asyncio.run(record())) for _ in range(6)]
        for service in services:
            service.start()
        await asyncio.gather(*(asyncio.to_thread(service.join) for service in services))
        recorder.barrier(PATIENCE)
        written = recorder.statistics().accepted

    assert written == {"decision": 120}
    assert len(await decisions(agentobs_database)) == 120


async def test_a_task_at_a_barrier_is_told_when_the_recorder_is_closed_with_rows_left(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        waiting = asyncio.create_task(recorder.abarrier())
        await in_turn(waiting)
        await recorder.aclose(0)

        with pytest.raises(BarrierTimeoutError):
            await asyncio.wait_for(waiting, PATIENCE)


async def test_a_barrier_whose_event_loop_is_gone_holds_up_no_other(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async with held_up(agentobs_database) as pause:
        key = recorder.routing_decision().id
        await pause.writer_waits()
        gone = asyncio.new_event_loop()
        left = gone.create_task(recorder.abarrier())
        await asyncio.to_thread(gone.run_until_complete, asyncio.sleep(0))
        gone.close()
    await recorder.abarrier(PATIENCE)

    async def is_stored() -> bool:
        return [row["id"] for row in await decisions(agentobs_database)] == [key]

    await eventually(is_stored)
    assert not left.done()
    # Nobody will: it is no fault of the recorder's.
    left._log_destroy_pending = False  # type: ignore[attr-defined]
