from __future__ import annotations

import json
from base64 import b64decode
from collections import ChainMap, OrderedDict, UserDict, UserList, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from pydantic import BaseModel, Field, RootModel, SecretBytes, SecretStr

from agentobs.recorder.sanitize import encode_json

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-5f2d0c8e"
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


class Shade(Enum):
    DARK = "dark"
    PAIR = (1, "two")


class Level(IntEnum):
    HIGH = 3


class Tone(StrEnum):
    SOFT = "soft"


@dataclass
class Point:
    label: str
    inner: object = None


@dataclass(frozen=True, slots=True)
class Slotted:
    number: Decimal


class Agent(BaseModel, extra="allow"):
    name: str
    password: SecretStr = SecretStr(CANARY)
    internal: str = Field(default=CANARY, exclude=True)


class Tags(RootModel[list[str]]):
    pass


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError


class Number(int):
    def __repr__(self) -> str:
        raise AssertionError


class Ratio(float):
    def __repr__(self) -> str:
        raise AssertionError


class Names(dict[str, Any]):
    def items(self) -> Any:
        raise AssertionError


class Rows(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError


class Array:
    """As NumPy has it."""

    dtype = "float64"

    def __init__(self, values: Any, nbytes: int = 8) -> None:
        self.values = values
        self.nbytes = nbytes

    def tolist(self) -> Any:
        return self.values


class Scalar:
    dtype = "int64"

    def item(self) -> int:
        return 7


class Basket:
    def item(self) -> str:
        raise AssertionError

    def __repr__(self) -> str:
        raise AssertionError


class Broken:
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class BrokenMapping(UserDict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise KeyError(CANARY)


class BrokenZone(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise ValueError(when)

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str:
        raise ValueError(when)


class BrokenError(Exception):
    def __str__(self) -> str:
        raise ValueError(CANARY)


class Odd(type):
    """Makes classes that are no keys of a dict."""

    def __eq__(cls, other: object) -> bool:
        raise ValueError(other)

    __hash__ = None  # type: ignore[assignment]


class OddlyMade(metaclass=Odd):
    pass


def decoded(value: object) -> Any:
    return json.loads(encode_json(value).text)


def changes(value: object) -> int:
    return encode_json(value).changes


@pytest.mark.parametrize("companion", [None, {1}])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (NOON, "2025-06-01T12:00:00+00:00"),
        (NOON.replace(tzinfo=None, microsecond=5), "2025-06-01T12:00:00.000005"),
        (NOON.astimezone(BERLIN), "2025-06-01T14:00:00+02:00"),
        (datetime(1850, 1, 1, tzinfo=BERLIN), "1850-01-01T00:00:00+00:53:28"),
        (date(1, 2, 3), "0001-02-03"),
        (time(1, 2, 3), "01:02:03"),
        (time(1, 2, tzinfo=timezone(timedelta(hours=1))), "01:02:00+01:00"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"text", "text"),
        (bytearray(b"text"), "text"),
        (memoryview(b"t.e.x.t.")[::2], "text"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Shade.DARK, "dark"),
        (Shade.PAIR, [1, "two"]),
        (Level.HIGH, 3),
        (Tone.SOFT, "soft"),
        (Text("text"), "text"),
        (Number(5), 5),
        (Ratio(0.5), 0.5),
        (Names(a=1), {"a": 1}),
        (Rows([1]), [1]),
        ({3, 20, 1}, [1, 3, 20]),
        (frozenset(["b", "a"]), ["a", "b"]),
        ({1, "a", None, 0.5}, [0.5, 1, "a", None]),
        (deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        (UserList([1]), [1]),
        (UserDict(a=1), {"a": 1}),
        (ChainMap({"a": 1}), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ({"b": 1}.keys(), ["b"]),
        ({"b": 1}.values(), [1]),
        (Point("p", Point("q")), {"label": "p", "inner": {"label": "q", "inner": None}}),
        (Slotted(Decimal("1.5")), {"number": 1.5}),
        (Agent.model_validate({"name": "a", "x": 1}), {"name": "a", "password": "*" * 10, "x": 1}),
        (
            Agent.model_validate({"name": "a"}).model_copy(update={"name": UUID(int=0)}),
            {"name": str(UUID(int=0))},
        ),
        (Tags(["a"]), ["a"]),
        (SecretBytes(CANARY.encode()), "*" * 10),
        (ValueError("bad", 1), "ValueError: ('bad', 1)"),
        (TimeoutError(), "TimeoutError"),
        (Array([1.5, [2.0]]), [1.5, [2.0]]),
        (Scalar(), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_converted_and_is_no_change(
    value: object, told: object, companion: object
) -> None:
    stored = decoded([value, companion])[0]

    assert stored == told if not isinstance(told, dict) else told.items() <= stored.items()
    assert changes([value, companion]) == 0
    assert CANARY not in encode_json([value, companion]).text


@pytest.mark.parametrize("raw", [b"\xff\x00\x01", b"\x00"])
def test_bytes_that_are_no_text_are_told_in_base64(raw: bytes) -> None:
    prefix, _, told = decoded(raw).partition(":")

    assert (prefix, b64decode(told), changes(raw)) == ("base64", raw, 0)


@pytest.mark.parametrize(
    ("value", "placeholder"),
    [
        (object(), "<object>"),
        (Basket(), "<Basket>"),
        (Point, "<type>"),
        (decoded, "<function>"),
        (1j, "<complex>"),
        (Broken(), "<Broken>"),
        (BrokenMapping(a=1), "<BrokenMapping>"),
        (BrokenError(), "<BrokenError>"),
        (OddlyMade(), "<OddlyMade>"),
        (NOON.replace(tzinfo=BrokenZone()), "<datetime>"),
        (Array([1], nbytes=10**12), "<Array>"),
        (orjson.Fragment(b"no JSON"), "<Fragment>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_not_be_told_becomes_a_placeholder(value: object, placeholder: str) -> None:
    assert decoded({"value": value, "next": 1}) == {"value": placeholder, "next": 1}
    assert changes({"value": value, "next": 1}) == 1


def test_a_generator_is_not_consumed() -> None:
    numbers = (number for number in range(3))

    assert decoded([numbers]) == ["<generator>"]
    assert list(numbers) == [0, 1, 2]
