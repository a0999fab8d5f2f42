from __future__ import annotations

import os
import stat
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spools import (
    BEGINNING,
    MEGABYTE,
    frames_of,
    payloads_of,
    replayed,
    segments_of,
    spool_with,
)

from agentobs.errors import SpoolError
from agentobs.recorder.spool.frames import encode_frame
from agentobs.recorder.spool.spool import Frame, Spool, take_over

if TYPE_CHECKING:
    from pathlib import Path


# Each example waits for the disk.
@settings(deadline=None)
@given(payloads=st.lists(st.binary(max_size=3000)), segment_bytes=st.integers(1, 5000))
def test_payloads_come_back_in_order_whatever_the_segments(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], segment_bytes: int
) -> None:
    root = tmp_path_factory.mktemp("spools")
    with spool_with(root, *payloads, segment_bytes=segment_bytes) as spool:
        assert payloads_of(spool) == payloads
    spools = list(take_over(root, "here"))

    assert [payloads_of(spool) for spool in spools] == ([payloads] if payloads else [])
    for spool in spools:
        spool.close()


def test_payloads_of_any_size_come_back_through_any_bounds(tmp_path: Path) -> None:
    payloads = [os.urandom(size) for size in (0, 1, 5120, 5121, 300_000, 700, 2_000_000, 7)]

    with spool_with(tmp_path, *payloads) as spool:
        for max_frames, max_bytes in ((1, 2**30), (3, 400_000), (10_000, 1)):
            found: list[Frame] = []
            while batch := spool.read(found[-1].end if found else BEGINNING, max_frames, max_bytes):
                assert len(batch) <= max_frames
                assert len(batch) == 1 or sum(len(each.payload) for each in batch) <= max_bytes
                found += batch
            assert [frame.payload for frame in found] == payloads


def test_a_payload_may_hold_what_looks_like_a_frame(tmp_path: Path) -> None:
    payload = encode_frame(b"inner")

    with spool_with(tmp_path, payload, payload * 3) as spool:
        assert payloads_of(spool) == [payload, payload * 3]


def test_append_returns_where_the_frame_is_read(tmp_path: Path) -> None:
    with spool_with(tmp_path, segment_bytes=100) as spool:
        positions = [spool.append(b"x" * number) for number in range(50)]

        assert [frame.position for frame in frames_of(spool)] == positions
        assert positions == sorted(positions)
        assert payloads_of(spool, positions[30]) == [b"x" * number for number in range(30, 50)]
        assert payloads_of(spool, spool.end) == []


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    with spool_with(tmp_path / "spools", b"x") as spool:
        spool.settle(BEGINNING)
        paths = [spool.path.parent, spool.path, *spool.path.iterdir()]

        assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in paths} == {0}


def test_what_is_settled_is_not_read_again(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2", b"3") as spool:
        spool.settle(frames_of(spool)[1].end)
        assert payloads_of(spool) == [b"3"]

    assert replayed(tmp_path) == ([b"3"], 0)


def test_an_earlier_settlement_takes_nothing_back(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2") as spool:
        first, second = frames_of(spool)
        spool.settle(second.position)
        spool.settle(first.position)

        assert spool.settled == second.position
        assert payloads_of(spool) == [b"2"]


def test_segments_go_when_all_in_them_is_settled(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2", b"3", segment_bytes=10) as spool:
        first, second, third = segments_of(spool.path)
        frames = frames_of(spool)

        spool.settle(frames[1].position)
        assert segments_of(spool.path) == [second, third]
        spool.settle(frames[2].position)
        assert segments_of(spool.path) == [third]
        assert not first.exists()


def test_a_long_segment_goes_as_soon_as_it_is_settled(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"x" * (MEGABYTE + 1), segment_bytes=16 * MEGABYTE) as spool:
        spool.settle(spool.end)
        assert segments_of(spool.path) == []

        position = spool.append(b"next")
        assert [frame.position for frame in frames_of(spool)] == [position]


def test_a_short_segment_is_used_further(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"x") as spool:
        spool.settle(spool.end)
        spool.append(b"next")

        assert len(segments_of(spool.path)) == 1
        assert payloads_of(spool) == [b"next"]


def test_the_size_is_that_of_what_is_not_settled(tmp_path: Path) -> None:
    with spool_with(tmp_path, segment_bytes=5000) as spool:
        assert spool.size == 0
        positions = [spool.append(b"x" * 700) for _ in range(20)]
        assert 20 * 700 < spool.size < 20 * 720
        spool.settle(positions[10])
        assert 10 * 700 < spool.size < 10 * 720
        spool.settle(spool.end)
        assert spool.size == 0


def test_close_removes_the_folder_when_all_is_settled(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2", segment_bytes=10) as spool:
        spool.settle(spool.end)

    assert list(tmp_path.iterdir()) == []


def test_close_keeps_what_is_not_settled(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1") as spool:
        pass

    assert spool.path.is_dir()
    assert spool.is_synced
    with pytest.raises(SpoolError, match="takes no more records"):
        spool.append(b"2")


def test_close_of_a_spool_that_was_never_used_leaves_nothing(tmp_path: Path) -> None:
    with spool_with(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_close_leaves_files_that_are_not_ours(tmp_path: Path) -> None:
    with spool_with(tmp_path) as spool:
        (spool.path / "notes.txt").write_text("mine")

    assert [path.name for path in spool.path.iterdir()] == ["notes.txt"]


def test_a_spool_is_synced_until_the_next_append(tmp_path: Path) -> None:
    with spool_with(tmp_path, segment_bytes=10) as spool:
        assert spool.is_synced
        for payload in (b"1", b"2"):
            spool.append(payload)
            assert not spool.is_synced
            spool.sync()
            assert spool.is_synced


def append_many(spool: Spool, recorder: Lock, thread: int, count: int) -> None:
    for number in range(count):
        with recorder:
            spool.append(b"%d %d" % (thread, number) + b"." * (number % 200))


def drain(spool: Spool, count: int) -> list[bytes]:
    """Read and settle until `count` payloads came."""
    found: list[bytes] = []
    while len(found) < count:
        frames = spool.read(spool.settled, 50, 10_000)
        found += [frame.payload.rstrip(b".") for frame in frames]
        if frames:
            spool.settle(frames[-1].end)
    return found


def test_threads_that_append_read_sync_and_settle_lose_nothing(tmp_path: Path) -> None:
    threads, count = 8, 500
    recorder = Lock()

    with spool_with(tmp_path, segment_bytes=3000) as spool, ThreadPoolExecutor(threads + 1) as pool:
        drained = pool.submit(drain, spool, threads * count)
        tasks = [
            pool.submit(append_many, spool, recorder, thread, count) for thread in range(threads)
        ]
        while not drained.done():
            spool.sync()
        for task in tasks:
            task.result()

    for thread in range(threads):
        mine = [payload for payload in drained.result() if payload.startswith(b"%d " % thread)]
        assert mine == [b"%d %d" % (thread, number) for number in range(count)]
    assert list(tmp_path.iterdir()) == []


def test_append_does_not_wait_for_a_busy_thread(tmp_path: Path) -> None:
    done = Event()

    def compute() -> None:
        while not done.is_set():
            pass

    with spool_with(tmp_path, b"x") as spool:
        busy = Thread(target=compute)
        busy.start()
        times = []
        for _ in range(2000):
            begin = time.perf_counter()
            spool.append(b"x" * 700)
            times.append(time.perf_counter() - begin)
        done.set()
        busy.join()

    # A thread that lets the interpreter lock go waits for 5 ms each time.
    assert statistics.median(times) < 0.001
