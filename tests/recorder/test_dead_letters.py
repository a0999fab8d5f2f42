from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.embedded import wait_until

from agentobs.errors import SpoolError
from agentobs.recorder.dead_letters.files import rewriting
from agentobs.recorder.dead_letters.writing import DeadLetter, DeadLetters, read_dead_letters

ID = UUID("01890000-0000-7000-8000-000000000001")


def letter(row: dict[str, Any], reason: str = "refused") -> DeadLetter:
    return DeadLetter("event", ID, reason, row, "23514", "positive")


def test_a_letter_comes_back_with_its_row_as_json(tmp_path: Path) -> None:
    row = {
        "id": ID,
        "at": datetime(2025, 6, 1, 12, tzinfo=UTC),
        "score": Decimal("0.1250"),
        "name": "Zoë\n\u0000",
        "context": '{"a": 1}',
        "tags": ["a", "b"],
        "size": 2**63,
        "none": None,
    }
    begin = datetime.now(UTC)

    DeadLetters(tmp_path).write([letter(row)])

    (found,) = read_dead_letters(tmp_path)
    assert begin <= datetime.fromisoformat(found.pop("at")) <= datetime.now(UTC)
    assert found == {
        "kind": "event",
        "id": str(ID),
        "reason": "refused",
        "sqlstate": "23514",
        "constraint": "positive",
        "row": {**row, "id": str(ID), "at": "2025-06-01T12:00:00+00:00", "score": "0.1250"},
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, str(2**70)),
        ("lone \ud800", "lone \ud800"),
        ([2**70], f"[{2**70}]"),
        (10**5000, "a value of type int"),
    ],
    ids=["integer", "surrogate", "list", "digits"],
)
def test_a_value_that_is_no_json_comes_back_as_text(
    tmp_path: Path, value: object, shown: str
) -> None:
    DeadLetters(tmp_path).write([letter({"value": value, "none": None})])

    (found,) = read_dead_letters(tmp_path)
    assert found["row"] == {"value": shown, "none": None}
    assert (found["kind"], found["id"]) == ("event", str(ID))


def test_a_row_may_be_any_mapping(tmp_path: Path) -> None:
    DeadLetters(tmp_path).write([DeadLetter("event", ID, "refused", MappingProxyType({"a": 1}))])

    (found,) = read_dead_letters(tmp_path)
    assert (found["row"], found["sqlstate"], found["constraint"]) == ({"a": 1}, None, None)


def test_letters_keep_their_order_over_many_writes(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)

    for number in range(5):
        letters.write([letter({"n": number, "m": each}) for each in range(3)])

    rows = [found["row"] for found in read_dead_letters(tmp_path)]
    assert rows == [{"n": number, "m": each} for number in range(5) for each in range(3)]
    assert [path.parent / path.name for path in tmp_path.iterdir()] == [letters.path]


def test_nothing_is_made_before_the_first_letter(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "letters")
    letters.write([])

    assert letters.path is None
    assert list(tmp_path.iterdir()) == []
    assert list(read_dead_letters(tmp_path / "letters")) == []


def test_the_file_and_its_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "letters")
    letters.write([letter({})])

    assert letters.path is not None
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (letters.path, letters.path.parent)]
    assert modes == [0o600, 0o700]


def test_a_row_is_in_no_repr() -> None:
    assert "secret" not in repr(letter({"value": "secret"}))


def test_the_half_line_of_a_dead_process_is_left_out_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": 1}), letter({"n": 2})])
    assert letters.path is not None
    os.truncate(letters.path, letters.path.stat().st_size - 5)

    assert [found["row"] for found in read_dead_letters(tmp_path)] == [{"n": 1}]
    assert not caplog.records


def test_a_damaged_line_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": number}) for number in range(3)])
    assert letters.path is not None
    letters.path.write_bytes(letters.path.read_bytes().replace(b'"n":1', b'"n":?'))

    assert [found["row"]["n"] for found in read_dead_letters(tmp_path)] == [0, 2]
    assert f"{letters.path}: line 2 is damaged" in caplog.text


def test_a_letter_goes_to_the_file_that_took_the_place_of_another_while_its_writer_waited(
    tmp_path: Path,
) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": 1}), letter({"n": 2})])
    assert letters.path is not None
    with letters.path.open("rb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        host = Thread(target=letters.write, args=([letter({"n": 3})],))
        host.start()
        wait_until(lambda: is_awaited(letters.path))
        (tmp_path / "new").write_bytes(old.readlines()[1])
        (tmp_path / "new").rename(letters.path)
    host.join()

    assert [found["row"]["n"] for found in read_dead_letters(tmp_path)] == [2, 3]


def is_awaited(path: Path | None) -> bool:
    """Tell whether somebody waits for the lock of a file."""
    assert path is not None
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and f":{path.stat().st_ino} " in line for line in locks)


def test_what_is_appended_while_a_file_is_written_anew_stays(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": number}) for number in range(4)])
    assert letters.path is not None
    with rewriting(letters.path) as file:
        lines = file.lines(3)
        file.replace(lines, lines[1:2])
        letters.write([letter({"n": 4})])

    assert [found["row"]["n"] for found in read_dead_letters(tmp_path)] == [1, 3, 4]
    assert list(tmp_path.iterdir()) == [letters.path]


def test_an_error_in_the_middle_leaves_what_was_not_replaced(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": number}) for number in range(3)])
    assert letters.path is not None

    def fail(path: Path) -> None:
        with rewriting(path) as file:
            file.replace(file.lines(1), [])
            file.lines(1)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail(letters.path)
    assert [found["row"]["n"] for found in read_dead_letters(tmp_path)] == [1, 2]


def test_a_file_that_somebody_replaced_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"n": 1})])
    assert letters.path is not None

    def replace(path: Path) -> None:
        with rewriting(path) as file:
            file.replace(file.lines(1), [])
            (tmp_path / "theirs").write_bytes(b"theirs\n")
            (tmp_path / "theirs").rename(path)

    with pytest.raises(SpoolError, match="was replaced"):
        replace(letters.path)
    assert letters.path.read_bytes() == b"theirs\n"
    assert list(tmp_path.iterdir()) == [letters.path]


def test_a_full_disk_leaves_the_file_of_letters_as_it_was(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.write([letter({"text": "x" * 2_000}) for _ in range(5)])
    assert letters.path is not None
    content = letters.path.read_bytes()

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK_FOR_THE_NEW_FILE, str(letters.path)],
        stdout=subprocess.PIPE,
        check=True,
    )

    assert done.stdout.split() == [b"True"]
    assert letters.path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [letters.path]


FULL_DISK_FOR_THE_NEW_FILE = """
import resource, sys
from pathlib import Path
from agentobs.errors import SpoolError
from agentobs.recorder.dead_letters.files import rewriting

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
try:
    with rewriting(Path(sys.argv[1])) as file:
        file.replace(file.lines(1), [])
except SpoolError as error:
    print("no room" in str(error))
"""


def test_two_writers_have_files_of_their_own(tmp_path: Path) -> None:
    first, second = DeadLetters(tmp_path), DeadLetters(tmp_path)
    first.write([letter({})])
    second.write([letter({})])

    assert first.path != second.path
    assert len(list(read_dead_letters(tmp_path))) == 2


def test_threads_mix_no_lines(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    ids = {str(uuid4()) for _ in range(200)}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda id_: letters.write([letter({"id": id_})]), ids))

    assert {found["row"]["id"] for found in read_dead_letters(tmp_path)} == ids


FULL_DISK = """
import resource, sys
from pathlib import Path
from uuid import uuid4
from agentobs.errors import SpoolError
from agentobs.recorder.dead_letters.writing import DeadLetter, DeadLetters

letters = DeadLetters(Path(sys.argv[1]))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
letters.write([DeadLetter("event", uuid4(), "first", {"text": "x" * 500})])
try:
    letters.write([DeadLetter("event", uuid4(), "second", {"text": "x" * 500})])
except SpoolError as error:
    print("xxx" not in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
letters.write([DeadLetter("event", uuid4(), "third", {})])
"""


def test_a_full_disk_leaves_no_half_of_a_letter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], stdout=subprocess.PIPE, check=True
    )

    assert done.stdout.split() == [b"True"]
    assert sorted(found["reason"] for found in read_dead_letters(tmp_path)) == ["first", "third"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SpoolError, match="File exists"):
        DeadLetters(tmp_path / "file").write([letter({})])
