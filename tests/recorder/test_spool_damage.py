from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.spools import (
    frames_of,
    left_behind,
    payloads_of,
    replayed,
    segments_of,
    spool_with,
)

from agentobs.errors import SpoolError
from agentobs.recorder.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path


def test_a_frame_that_was_cut_off_anywhere_is_left_out_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with spool_with(tmp_path, b"first", b"second") as spool:
        last = spool.append(b"the last")
        (segment,) = segments_of(spool.path)

    for size in reversed(range(last.offset, spool.end.offset)):
        os.truncate(segment, size)
        assert replayed(tmp_path) == ([b"first", b"second"], 0)
    assert not caplog.records


def test_a_damaged_byte_costs_one_frame_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with spool_with(tmp_path, b"first") as spool:
        damaged, sound = spool.append(b"a secret"), spool.append(b"third")
        (segment,) = segments_of(spool.path)
    content = segment.read_bytes()

    for offset in range(damaged.offset, sound.offset):
        caplog.clear()
        changed = bytearray(content)
        changed[offset] ^= 0x10
        segment.write_bytes(changed)
        assert replayed(tmp_path) == ([b"first", b"third"], 1)
        assert f"{segment} at offset {damaged.offset}: 20 bytes are damaged" in caplog.text
        assert "secret" not in caplog.text


def test_damage_is_counted_once_however_often_it_is_read(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"first", b"second", b"third") as spool:
        (segment,) = segments_of(spool.path)
        segment.write_bytes(segment.read_bytes().replace(b"second", b"Second"))

        assert payloads_of(spool) == payloads_of(spool) == [b"first", b"third"]
        assert spool.damaged == 1


def test_what_follows_damage_of_more_than_a_window_is_found(tmp_path: Path) -> None:
    (segment,) = segments_of(left_behind(tmp_path, b"first", b"x" * 900_000, b"third"))
    content = segment.read_bytes()

    segment.write_bytes(content.replace(b"xx", b"yy"))

    assert replayed(tmp_path) == ([b"first", b"third"], 1)


def test_damage_to_the_end_of_a_segment_costs_no_other_segment(tmp_path: Path) -> None:
    first, *_ = segments_of(
        left_behind(tmp_path, b"1" * 60, b"2" * 60, b"3" * 60, segment_bytes=130)
    )

    first.write_bytes(first.read_bytes()[:-100] + bytes(100))

    assert replayed(tmp_path) == ([b"3" * 60], 1)


def test_a_damaged_header_costs_no_frame(tmp_path: Path) -> None:
    _, second = segments_of(left_behind(tmp_path, b"1", b"2", segment_bytes=10))

    second.write_bytes(b"?" + second.read_bytes()[1:])

    assert replayed(tmp_path) == ([b"1", b"2"], 1)


def test_a_missing_segment_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with spool_with(tmp_path, b"1", b"2", b"3", segment_bytes=10) as spool:
        segments_of(spool.path)[1].unlink()

        assert payloads_of(spool) == [b"1", b"3"]
        assert spool.damaged == 1
        assert "the segment is missing" in caplog.text
        spool.settle(spool.end)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 20, b"short"])
def test_a_lost_note_of_what_is_settled_leads_to_a_full_replay(
    tmp_path: Path, content: bytes | None
) -> None:
    with spool_with(tmp_path, b"1", b"2") as spool:
        spool.settle(frames_of(spool)[0].end)
        note = spool.path / "settled"
    note.unlink()
    if content is not None:
        note.write_bytes(content)

    assert replayed(tmp_path) == ([b"1", b"2"], 0)


def test_a_disk_that_refuses_a_sync_is_not_believed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with spool_with(tmp_path, b"1") as spool:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(SpoolError, match="Input/output error"):
                spool.sync()
        spool.append(b"2")
        with pytest.raises(SpoolError, match="may be lost"):
            spool.sync()
        assert payloads_of(spool) == [b"1", b"2"]

        spool.settle(frames_of(spool)[1].position)
        spool.sync()
        assert spool.is_synced


def test_a_sync_tells_when_somebody_removed_records_that_are_open_no_more(tmp_path: Path) -> None:
    with spool_with(tmp_path, b"1", b"2", segment_bytes=10) as spool:
        segments_of(spool.path)[0].unlink()

        with pytest.raises(SpoolError, match="may be lost"):
            spool.sync()
        spool.settle(spool.end)


FULL_DISK = """
import resource, sys
from pathlib import Path
from agentobs.errors import SpoolError
from agentobs.recorder.spool.spool import Position, Spool

spool = Spool.create(Path(sys.argv[1]), "here")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
accepted = []
refused = 0
for number in range(40):
    payload = b"%03d" % number * 250
    try:
        spool.append(payload)
        accepted.append(payload)
    except SpoolError as error:
        refused += 1
        assert "no room for more records" in str(error), error
    if number == 20:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
frames = spool.read(Position(0, 0), 1000, 10**9)
assert [frame.payload for frame in frames] == accepted
assert (spool.end, spool.damaged) == (frames[-1].end, 0)
assert spool.end.offset == next(spool.path.glob("*.segment")).stat().st_size
print(len(accepted), refused)
"""


def test_a_full_disk_refuses_whole_records_until_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], stdout=subprocess.PIPE, check=True
    )

    assert done.stdout.split() == [b"32", b"8"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SpoolError, match="File exists") as caught:
        Spool.create(tmp_path / "file" / "spools", "here")
    assert caught.value.path == tmp_path / "file"


def test_a_payload_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with spool_with(tmp_path) as spool, pytest.raises(SpoolError, match="more than"):
        spool.append(bytes(2**30 + 1))
