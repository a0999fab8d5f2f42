from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.embedded import wait_until
from support.held_up import held_up
from support.pools import eventually
from support.recorder_hosts import host_of
from support.recorders import decisions, strict_recorder
from support.spools import frames_of, payloads_of, replayed, segments_of, spool_with

from agentobs.errors import SpoolError
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.spool import describe_spools, take_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from agentobs import DatabaseSettings, Recorder


def test_a_sync_puts_a_deleted_folder_back_with_its_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "state" / "spools"
    with spool_with(root, b"1", b"2") as spool:
        spool.settle(frames_of(spool)[0].end)
        spool.sync()
        shutil.rmtree(tmp_path / "state")

        spool.append(b"3")
        spool.sync()
        spool.append(b"4")

        assert spool.is_synced is False
        assert list(take_over(root, "here")) == []
        assert payloads_of(spool) == [b"2", b"3", b"4"]
        (summary,) = describe_spools(root)
        assert (summary.target, summary.is_alive) == ("here", True)
        modes = [path.stat().st_mode & 0o777 for path in (spool.path, *spool.path.iterdir())]
        assert modes == [0o700, 0o600, 0o600, 0o600]
        assert caplog.text.count("was deleted while it was in use") == 1

    assert replayed(root) == ([b"2", b"3", b"4"], 0)


@pytest.mark.parametrize("name", ["lock", "0000000001.segment"])
def test_a_deleted_file_of_a_spool_is_put_back(tmp_path: Path, name: str) -> None:
    with spool_with(tmp_path, b"1", b"2") as spool:
        spool.settle(frames_of(spool)[0].end)
        spool.sync()
        (spool.path / name).unlink()

        spool.sync()

        assert (spool.path / name).exists()
        assert list(take_over(tmp_path, "here")) == []
        assert payloads_of(spool) == [b"2"]

    assert replayed(tmp_path) == ([b"2"], 0)


def test_records_that_wait_in_a_deleted_segment_are_read_all_the_same(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2") as spool:
        shutil.rmtree(spool.path)

        assert payloads_of(spool) == [b"1", b"2"]
        assert spool.damaged == 0


def test_a_sync_goes_on_to_raise_while_a_segment_that_was_full_is_gone(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2", segment_bytes=10) as spool:
        spool.sync()
        shutil.rmtree(spool.path)

        for _ in range(2):
            with pytest.raises(SpoolError, match="may be lost"):
                spool.sync()
        assert not spool.is_synced
        (second,) = frames_of(spool)
        assert second.payload == b"2"
        assert not spool.holds(second.position._replace(segment=1))
        assert spool.holds(second.position)

        spool.settle(second.position)
        spool.sync()
        assert spool.is_synced


def test_where_a_folder_can_not_be_made_again_every_sync_raises_until_it_can(
    tmp_path: Path,
) -> None:
    root = tmp_path / "spools"
    with spool_with(root, b"1") as spool:
        spool.sync()
        shutil.rmtree(root)
        root.touch()

        for _ in range(2):
            with pytest.raises(SpoolError):
                spool.sync()
        spool.append(b"2")
        root.unlink()
        spool.sync()

        assert payloads_of(spool) == [b"1", b"2"]


def test_a_spool_that_was_taken_over_is_not_made_again(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1") as spool:
        path = spool.path
    (spool,) = take_over(tmp_path, "here")
    shutil.rmtree(path)

    with pytest.raises(SpoolError, match="No such file"):
        spool.sync()
    assert payloads_of(spool) == []
    assert not path.exists()
    spool.close()

    assert not path.exists()


def test_healing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1") as spool:
        before = open_files()
        for _ in range(3):
            shutil.rmtree(spool.path)
            spool.sync()
        assert open_files() == before


async def test_a_barrier_calls_nothing_safe_that_is_in_a_deleted_file(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, delivery="spool") as recorder:
        async with held_up(agentobs_database) as pause:
            keys = [decide(recorder)]
            await pause.writer_waits()
            await recorder.abarrier()
            shutil.rmtree(tmp_path / "spools")
            keys.append(decide(recorder))
            await recorder.abarrier()

            assert all(str(key).encode() in content_of(tmp_path) for key in keys)
        statistics = recorder.statistics()

    assert statistics.unspooled == 0
    assert {row["id"] for row in await decisions(agentobs_database)} == set(keys)


async def test_what_a_spool_can_not_hold_after_it_was_deleted_is_a_dead_letter_at_the_end(
    agentobs_database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path, delivery="spool").start()
    async with held_up(agentobs_database) as pause:
        keys = [decide(recorder)]
        await pause.writer_waits()
        shutil.rmtree(tmp_path / "spools")
        (tmp_path / "spools").touch()
        keys.append(decide(recorder))
        with pytest.raises(SpoolError):
            await recorder.abarrier()
        report = await recorder.aclose(0)

    assert report.left == {"decision": 2}
    assert report.spool is None
    statistics = recorder.statistics()
    assert (statistics.abandoned, statistics.spooled) == ({"decision": 2}, {})
    letters = [letter["id"] for letter in read_dead_letters(tmp_path / "dead-letters")]
    assert letters == [str(key) for key in keys]
    assert caplog.text.count("can't be made durable") == 1


async def test_a_recorder_whose_folder_was_deleted_loses_nothing_when_it_is_killed(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    async with held_up(agentobs_database) as pause:
        with host_of(record_around_a_deletion, agentobs_database, tmp_path) as host:
            host.read(40)
            await pause.writer_waits()
            await asyncio.to_thread(host.kill)

    assert len(host.accepted.decisions) >= 40
    with strict_recorder(agentobs_database, tmp_path, delivery="spool") as successor:

        async def is_replayed() -> bool:
            return not successor.is_replaying

        await eventually(is_replayed)

    rows = {row["id"] for row in await decisions(agentobs_database)}
    assert rows >= host.accepted.decisions
    assert successor.statistics().replayed["decision"] >= 40


async def test_what_a_closed_recorder_left_in_its_spool_is_named_and_not_called_complete(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path, delivery="spool").start()
    decide(recorder)
    wait_until(lambda: recorder.statistics().written.get("decision") == 1)
    async with held_up(agentobs_database) as pause:
        decide(recorder)
        await pause.writer_waits()
        decide(recorder)
        decide(recorder)
        report = await recorder.aclose(0)

    statistics = recorder.statistics()
    assert report.left == statistics.spooled == {"decision": 3}
    assert (statistics.pending, statistics.abandoned, statistics.completeness) == (0, {}, 1 / 4)
    assert not statistics.has_lost
    assert "3 spooled" in str(statistics)
    with strict_recorder(agentobs_database, tmp_path, delivery="spool") as successor:
        wait_until(lambda: not successor.is_replaying)
    assert successor.statistics().completeness == 1
    assert successor.statistics().replayed == {"decision": 3}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def decide(recorder: Recorder) -> UUID:
    return recorder.routing_decision(selected_agent="agent-debug").id


def content_of(folder: Path) -> bytes:
    """Return what the one segment of the one spool holds."""
    (path,) = (folder / "spools").iterdir()
    (segment,) = segments_of(path)
    return segment.read_bytes()


def record_around_a_deletion(
    tell: Callable[..., None], database: DatabaseSettings, folder: Path
) -> None:
    """Record, have the folder deleted, and go on when it is there again, until somebody kills."""
    recorder = strict_recorder(database, folder, delivery="spool").start()
    for _ in range(20):
        tell("decision", decide(recorder))
    shutil.rmtree(folder / "spools")
    for _ in range(10):
        tell("decision", decide(recorder))
    recorder.barrier()
    while True:
        tell("decision", decide(recorder))
