from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from agentobs.errors import SpoolError
from agentobs.recorder.dead_letters import DeadLetter, DeadLetters, read_dead_letters

if TYPE_CHECKING:
    from pathlib import Path

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
from agentobs.recorder.dead_letters import DeadLetter, DeadLetters

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
