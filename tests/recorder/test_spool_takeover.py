from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.spools import left_behind, payloads_of, segments_of

from agentobs.errors import SpoolError
from agentobs.recorder.spool.spool import Spool, describe_spools, take_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def program(text: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with the modules that every one of these programs needs."""
    imports = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from agentobs.errors import SpoolError\n"
        "from agentobs.recorder.spool.spool import Position, Spool, take_over\n"
        "root = Path(sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", imports + text, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def output_of(text: str, *arguments: object) -> list[bytes]:
    with program(text, *arguments) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    return output.split()


def taken(root: Path, target: str = "here") -> list[list[bytes]]:
    """Take all spools over, settle them, and return what was in each."""
    found = []
    for spool in take_over(root, target):
        found.append(payloads_of(spool))
        spool.settle(spool.end)
        spool.close()
    return found


APPEND_FOR_EVER = """
spool = Spool.create(root, "here", segment_bytes=20_000)
number = 0
while True:
    spool.append(b"%d " % number + b"x" * (number * 37 % 2000))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("number", [1, 2, 50, 333, 1000, 2500])
def test_what_was_appended_outlives_a_kill(tmp_path: Path, number: int) -> None:
    with program(APPEND_FOR_EVER, tmp_path) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(number)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        process.wait()
    (payloads,) = taken(tmp_path)

    numbers = [int(payload.split()[0]) for payload in payloads]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > int(told[-1])
    assert list(tmp_path.iterdir()) == []


TAKE_ALL = """
os.write(1, b"ready\\n")
sys.stdin.read(1)
for spool in take_over(root, "here"):
    for frame in spool.read(Position(0, 0), 100, 10**6):
        os.write(1, frame.payload + b"\\n")
    spool.settle(spool.end)
    spool.close()
"""


def test_each_spool_goes_to_one_of_those_who_take_over_at_once(tmp_path: Path) -> None:
    names = [b"spool-%d" % number for number in range(60)]
    for name in names:
        left_behind(tmp_path, name)

    with ExitStack() as stack:
        takers = [stack.enter_context(program(TAKE_ALL, tmp_path)) for _ in range(3)]
        for taker in takers:
            assert taker.stdout is not None
            assert taker.stdout.readline() == b"ready\n"
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write(b"!")
            taker.stdin.flush()
        found = [payload for taker in takers for payload in taker.communicate()[0].split()]

    assert sorted(found) == sorted(names)
    assert list(tmp_path.iterdir()) == []


def test_spools_are_taken_over_in_the_order_of_their_age(tmp_path: Path) -> None:
    for number in range(5):
        left_behind(tmp_path, b"%d" % number)

    assert taken(tmp_path) == [[b"%d" % number] for number in range(5)]


def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "here")
    spool.append(b"mine")

    assert taken(tmp_path) == []
    assert output_of("print(len(list(take_over(root, 'here'))))", tmp_path) == [b"0"]
    spool.close()
    assert taken(tmp_path) == [[b"mine"]]


def test_a_spool_that_was_taken_over_is_left_alone_until_it_is_closed(tmp_path: Path) -> None:
    left_behind(tmp_path, b"one")

    (spool,) = take_over(tmp_path, "here")
    assert taken(tmp_path) == []
    spool.close()
    assert taken(tmp_path) == [[b"one"]]


def test_a_successor_begins_where_its_predecessor_stopped(tmp_path: Path) -> None:
    left_behind(tmp_path, b"1", b"2", b"3")

    (spool,) = take_over(tmp_path, "here")
    spool.settle(spool.read(spool.settled, 1, 100)[0].end)
    spool.close()

    assert taken(tmp_path) == [[b"2", b"3"]]


def test_a_spool_that_was_taken_over_takes_no_records(tmp_path: Path) -> None:
    left_behind(tmp_path, b"1")

    (spool,) = take_over(tmp_path, "here")
    with pytest.raises(SpoolError, match="takes no more records"):
        spool.append(b"2")
    spool.close()


def test_a_spool_of_another_target_is_left_alone(tmp_path: Path) -> None:
    left_behind(tmp_path, b"theirs", target="there/\u00e4")
    left_behind(tmp_path, b"mine")

    assert taken(tmp_path) == [[b"mine"]]
    assert taken(tmp_path, "there/\u00e4") == [[b"theirs"]]


def test_a_spool_of_an_unknown_format_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_behind(tmp_path, b"1")
    (segment,) = segments_of(path)
    segment.write_bytes(segment.read_bytes().replace(b"AS1", b"AS2"))

    assert taken(tmp_path) == []
    assert f"{path}: is left alone, for its format is not known" in caplog.text
    assert segment.exists()


def test_there_is_nothing_to_take_over_where_there_is_no_folder(tmp_path: Path) -> None:
    assert taken(tmp_path / "none") == []
    assert describe_spools(tmp_path / "none") == []


def leave_empty(root: Path, *, with_lock: bool, with_segment: bool) -> Path:
    """Leave a folder as a process does that dies before its first record."""
    path = left_behind(root, b"x")
    for file in path.iterdir():
        if file.suffix == ".segment" and with_segment:
            os.truncate(file, 10)
        elif file.name != "lock" or not with_lock:
            file.unlink()
    return path


@pytest.mark.parametrize(
    ("with_lock", "with_segment"), [(False, False), (True, False), (True, True)]
)
def test_an_old_folder_without_records_is_removed(
    tmp_path: Path, *, with_lock: bool, with_segment: bool
) -> None:
    path = leave_empty(tmp_path, with_lock=with_lock, with_segment=with_segment)
    assert taken(tmp_path) == []
    assert path.exists()

    os.utime(path, (time.time() - 100,) * 2)
    assert taken(tmp_path) == []
    assert not path.exists()


def test_an_old_folder_without_records_stays_while_its_process_lives(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "here")
    os.utime(spool.path, (time.time() - 100,) * 2)

    assert taken(tmp_path) == []
    spool.append(b"first")
    spool.close()
    assert taken(tmp_path) == [[b"first"]]


def test_other_folders_beside_the_spools_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "dead-letters"
    other.mkdir()
    os.utime(other, (time.time() - 100,) * 2)

    assert taken(tmp_path) == []
    assert other.exists()


def test_a_spool_that_cannot_be_opened_keeps_nobody_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = left_behind(tmp_path, b"1")
    left_behind(tmp_path, b"2")
    (broken / "lock").unlink()
    (broken / "lock").mkdir()

    assert taken(tmp_path) == [[b"2"]]
    assert f"{broken}: can't be taken over: Is a directory" in caplog.text


FORKED = """
spool = Spool.create(root, "here")
spool.append(b"1")
child = os.fork()
if child == 0:
    spool.abandon()
    try:
        spool.append(b"2")
    except SpoolError:
        spool.close()
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert list(take_over(root, "here")) == []
spool.append(b"3")
spool.close()
"""


def test_a_forked_child_abandons_the_spool_and_its_parent_keeps_it(tmp_path: Path) -> None:
    output_of(FORKED, tmp_path)

    assert taken(tmp_path) == [[b"1", b"3"]]


FORKED_AND_CLOSED = """
spool = Spool.create(root, "here")
spool.append(b"1")
child_waits, parent_tells = os.pipe()
child = os.fork()
if child == 0:
    os.close(parent_tells)
    os.read(child_waits, 1)
    os._exit(0)
spool.close()
for taken in take_over(root, "here"):
    print(taken.read(Position(0, 0), 1, 1)[0].payload.decode())
os.close(parent_tells)
os.waitpid(child, 0)
"""


def test_close_lets_the_lock_go_though_a_forked_child_has_it_too(tmp_path: Path) -> None:
    assert output_of(FORKED_AND_CLOSED, tmp_path) == [b"1"]


def test_operators_see_the_spools_with_records_and_those_in_use(tmp_path: Path) -> None:
    dead = left_behind(tmp_path, b"x" * 1000)
    leave_empty(tmp_path, with_lock=True, with_segment=False)
    spool = Spool.create(tmp_path, "there")

    first, second = describe_spools(tmp_path)

    assert (first.path, first.target, first.is_alive) == (dead, "here", False)
    assert 1000 < first.bytes < 1100
    assert (second.path, second.bytes, second.is_alive) == (spool.path, 0, True)
    spool.close()
