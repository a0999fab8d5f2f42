from __future__ import annotations

import json
from collections import UserDict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from agentobs.recorder.sanitize import encode_json, hash_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


class Shade(Enum):
    DARK = "dark"
    PAIR = (1, "two")


@dataclass
class Point:
    label: str
    inner: object = None


class Flickering(UserDict[str, Any]):
    """Changes while it is read for the first time, as if by another thread."""

    reads = 0

    def __iter__(self) -> Iterator[str]:
        self.reads += 1
        if self.reads == 1:
            self.data["late"] = 2
        yield from super().__iter__()
        if self.reads == 1:
            raise RuntimeError("dictionary changed size during iteration")


def decoded(value: object) -> Any:
    return json.loads(encode_json(value).text)


def changes(value: object) -> int:
    return encode_json(value).changes


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def test_plain_values_are_told_as_they_are() -> None:
    value = {"a": [1, 0.5, None, True, "ü\n\\"], "b": {"c": (1, 2)}}

    encoded = encode_json(value)

    assert encoded.text == '{"a":[1,0.5,null,true,"ü\\n\\\\"],"b":{"c":[1,2]}}'
    assert encoded.size == len(encoded.text.encode())
    assert (encoded.changes, encoded.is_cut) == (0, False)


@pytest.mark.parametrize(
    ("text", "clean", "replaced"),
    [
        ("plain", "plain", 0),
        ("ü 🙂", "ü 🙂", 0),
        ("a\x00b\x00", "a\ufffdb\ufffd", 2),
        ("a\ud800b", "a\ufffdb", 1),
        ("ü\udfff\x00", "ü\ufffd\ufffd", 2),
        ("", "", 0),
    ],
)
def test_what_no_column_holds_is_replaced_and_counted(text: str, clean: str, replaced: int) -> None:
    assert sanitize_text(text) == (clean, replaced)
    assert (decoded(text), changes(text)) == (clean, replaced)
    assert (decoded({text: 1}), changes({text: 1})) == ({clean: 1}, replaced)


def test_text_that_only_looks_like_an_escape_is_no_change() -> None:
    assert decoded(["\\u0000", "null", "\\ud800"]) == ["\\u0000", "null", "\\ud800"]
    assert changes("\\u0000") == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), Decimal("sNaN")])
def test_a_number_that_json_does_not_know_becomes_null(number: object) -> None:
    assert decoded([number, None, 1.5]) == [None, None, 1.5]
    assert changes([number, None, 1.5]) == 1


@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63) - 1, 10**4300 - 1])
def test_an_integer_keeps_every_digit(number: int) -> None:
    assert decoded([number]) == [number]
    assert changes([number]) == 0


def test_an_integer_that_python_would_not_read_becomes_hexadecimal_text() -> None:
    assert int(decoded(-(10**4300)), 16) == -(10**4300)
    assert changes(10**4300) == 1


@pytest.mark.parametrize(
    "text", ["0.10", "1E+3", "-0", "123456789012345678901234567890.5", "1E-30"]
)
def test_a_decimal_keeps_its_digits(text: str) -> None:
    assert encode_json([Decimal(text)]) == (f"[{text}]", len(text) + 2, 0, False)


@pytest.mark.parametrize("text", ["1E+4300", "1E-16384", "1E+200000"])
def test_a_decimal_that_is_too_long_written_out_becomes_text(text: str) -> None:
    assert (decoded(Decimal(text)), changes(Decimal(text))) == (text, 1)


def test_keys_become_the_text_that_json_has_for_them() -> None:
    keys = [2, 0.5, True, None, UUID(int=0), NOON, Shade.DARK, 2**70, Decimal("1.50")]

    assert list(decoded(dict.fromkeys(keys))) == [
        "2",
        "0.5",
        "true",
        "null",
        "00000000-0000-0000-0000-000000000000",
        "2025-06-01T12:00:00+00:00",
        "dark",
        "1180591620717411303424",
        "1.50",
    ]
    assert changes(dict.fromkeys(keys)) == 0


def test_a_key_that_has_no_text_becomes_a_placeholder() -> None:
    assert decoded({(1, 2): "a", frozenset(): "b"}) == {"<tuple>": "a", "<frozenset>": "b"}
    assert changes({(1, 2): "a", frozenset(): "b"}) == 2


def test_values_whose_keys_become_the_same_text_are_all_kept() -> None:
    value = {1: "a", "1": "b", "1~2": "c", "\x00": "d", "\ufffd": "e", "1~3": "f"}

    assert decoded(value) == {
        "1": "a",
        "1~2": "b",
        "1~2~2": "c",
        "\ufffd": "d",
        "\ufffd~2": "e",
        "1~3": "f",
    }
    assert changes(value) == 4


def test_a_value_that_holds_itself_is_told_once() -> None:
    value: dict[str, Any] = {"number": 1}
    value["self"] = [value]
    point = Point("p")
    point.inner = {"back": point}

    assert decoded(value) == {"number": 1, "self": ["<cycle>"]}
    assert decoded(point) == {"label": "p", "inner": {"back": "<cycle>"}}
    assert (changes(value), changes(point)) == (1, 1)


def test_a_value_that_stands_at_two_places_is_no_cycle() -> None:
    shared = {"number": Decimal(1)}

    assert decoded([shared, shared]) == [{"number": 1}, {"number": 1}]


@pytest.mark.parametrize("companion", [None, {1}])
def test_what_lies_too_deep_becomes_a_placeholder(companion: object) -> None:
    assert changes([nested(99), companion]) == 0
    assert changes([nested(100), companion]) == 1
    assert "<list>" in encode_json([nested(100_000), companion]).text


def test_a_graph_of_values_that_know_each_other_is_not_walked_for_ever() -> None:
    points = [Point(str(number)) for number in range(12)]
    for point in points:
        point.inner = list(points)

    assert "<too many values>" in encode_json(points).text


def test_a_lazy_sequence_is_not_read_to_its_end() -> None:
    assert decoded(range(10**15))[-1] == "<too many values>"


def test_a_mapping_that_changes_while_it_is_read_is_read_again() -> None:
    assert decoded(Flickering(a=1)) == {"a": 1, "late": 2}


@pytest.mark.parametrize("make", [lambda: {"b": 1, "a": {3, 1}}, lambda: {"a": {1, 3}, "b": 1}])
def test_the_order_of_keys_does_not_change_the_hash(make: Callable[[], object]) -> None:
    assert hash_json(make()) == hash_json({"a": [1, 3], "b": 1})


def test_other_content_has_another_hash() -> None:
    assert len({hash_json(value) for value in (1, 1.0, "1", [1], {"1": 1}, None, 2)}) == 7


def test_a_hash_does_not_depend_on_the_type_that_holds_the_content() -> None:
    assert hash_json({"at": NOON, "id": UUID(int=1)}) == hash_json(
        {"id": str(UUID(int=1)), "at": NOON.isoformat()}
    )


def test_keys_are_sorted_on_request() -> None:
    assert encode_json({"b": 1, "a": 2**70}, sort_keys=True).text.startswith('{"a"')


def test_the_value_is_left_as_it_was() -> None:
    inner = {"n": float("nan"), 1: {2}}
    value = {"a\x00": inner, "b": [inner]}

    encode_json(value)

    assert list(value) == ["a\x00", "b"]
    assert list(inner) == ["n", 1]
    assert value["b"] == [inner]
