"""Copies of any Python value that are made of what JSON knows."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from contextlib import suppress
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import NoneType
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr

# Far within the recursion limits of Python, orjson and PostgreSQL.
DEEPEST = 100

# A graph of objects that know each other, or a lazy sequence, could else be walked for ever.
_MOST_VALUES = 250_000

# Python reads integers of so many digits. PostgreSQL writes out what has an exponent.
_MOST_DIGITS = 4300
_FIRST_UNREADABLE = 10**_MOST_DIGITS
_MOST_DECIMALS = 16383

_ATTEMPTS = 3
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# As Python knows the type: a metaclass may say anything, or raise.
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__


def sanitize_text(text: str) -> tuple[str, int]:
    """Replace what no PostgreSQL column holds, U+0000 and lone surrogates; tell how often."""
    if "\x00" not in text:
        if text.isascii():
            return text, 0
        with suppress(UnicodeEncodeError):
            text.encode()
            return text, 0
    return _UNSTORABLE.subn("\ufffd", text)


class Copier:
    """Copies values to what orjson writes without running Python code, and counts the changes.

    `reserved` are names that the keys of the outermost object may not have.
    """

    def __init__(self, reserved: tuple[str, ...] = ()) -> None:
        self.reserved = reserved
        self.changes = 0
        self._left = _MOST_VALUES
        self._above: set[int] = set()

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Copy a value that lies in `depth` others; what can't be copied becomes a placeholder."""
        self._left -= 1
        if self._left < 0:
            return self.changed("<too many values>")
        if type(value) is str:
            return self.text(value)
        try:
            return self._convert(type(value), value, depth)
        except Exception:  # noqa: BLE001 (methods of a host's object may raise anything)
            return self.placeholder(value)

    def _convert(self, kind: type, value: Any, depth: int) -> Any:
        if issubclass(kind, Enum):
            return self.copy(value.value, depth)
        for base in kind.__mro__:
            if convert := _SCALARS.get(base):
                return convert(self, value)
            if fill := _CONTAINERS.get(base):
                return self._fill(fill, value, depth)
        return self._fill(_filler_for(kind, value), value, depth)

    def _fill(self, fill: Callable[[Copier, Any, int], Any], value: Any, depth: int) -> Any:
        if id(value) in self._above:
            return self.changed("<cycle>")
        if depth >= DEEPEST:
            return self.placeholder(value)
        self._above.add(id(value))
        try:
            return fill(self, value, depth + 1)
        finally:
            self._above.discard(id(value))

    def changed(self, instead: Any) -> Any:
        """Count a change, and return what stands there instead."""
        self.changes += 1
        return instead

    def placeholder(self, value: object) -> Any:
        """Name the type of what can't be told."""
        # Its repr might be huge, slow, wrong, or tell a secret.
        return self.changed(f"<{_name_of(type(value))}>")

    def text(self, text: str) -> str:
        """Sanitize a text, and count what was replaced."""
        clean, replaced = sanitize_text(text)
        self.changes += replaced
        return clean

    def take(self, items: Iterable[Any]) -> list[Any]:
        """Read one more than there may still be, so that the last one tells of the rest."""
        return list(islice(items, max(self._left, 0) + 1))

    def retake(self, items: Callable[[], Iterable[Any]]) -> list[Any]:
        """Take what another thread may change meanwhile, again if it did."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(RuntimeError):
                return self.take(items())
        return self.take(items())

    def array(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Copy items to an array."""
        return [self.copy(item, depth) for item in self.take(items)]

    def mapping(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        """Copy pairs of keys and values to an object."""
        taken = self.take(pairs)
        names = self.names([key for key, _ in taken], self.reserved if depth == 1 else ())
        return {
            name: self.copy(value, depth) for name, (_, value) in zip(names, taken, strict=True)
        }

    def names(self, keys: list[Any], reserved: tuple[str, ...]) -> list[str]:
        """Name keys as JSON has them; one whose name is taken gets the next free suffix."""
        if _are_names(keys) and set(reserved).isdisjoint(keys):
            return keys
        uses = dict.fromkeys(reserved, 1)
        for key in keys:
            name = self._name(key)
            if name in uses:
                name = self.changed(_next_name(uses, name))
            uses[name] = 1
        return list(uses)[len(reserved) :]

    def _name(self, key: Any) -> str:
        if type(key) is str:
            return self.text(key)
        # No container is a name.
        plain = self.copy(key, DEEPEST)
        return plain if isinstance(plain, str) else orjson.dumps(plain).decode()


def _are_names(keys: list[Any]) -> bool:
    return all(type(key) is str for key in keys) and not sanitize_text("".join(keys))[1]


def _next_name(uses: dict[str, int], name: str) -> str:
    while (candidate := f"{name}~{uses[name] + 1}") in uses:
        uses[name] += 1
    uses[name] += 1
    return candidate


def _integer(copier: Copier, value: int) -> Any:
    number = int.__int__(value)
    if -(2**63) <= number < 2**64:
        return number
    if abs(number) < _FIRST_UNREADABLE:
        # Without the limit that the host may have set for its own conversions.
        return orjson.Fragment(f"{Decimal(number):f}")
    return copier.changed(hex(number))


def _float(copier: Copier, value: float) -> Any:
    number = float.__float__(value)
    return number if math.isfinite(number) else copier.changed(None)


def _decimal(copier: Copier, value: Decimal) -> Any:
    if not Decimal.is_finite(value):
        return copier.changed(None)
    # The host's context may ask for a small e.
    text = Decimal.__str__(value).upper()
    decimals = -int(Decimal.as_tuple(value).exponent)
    if Decimal.adjusted(value) < _MOST_DIGITS and decimals <= _MOST_DECIMALS:
        return orjson.Fragment(text)
    return copier.changed(text)


def _bytes(_: Copier, value: bytes | bytearray | memoryview) -> str:
    raw = memoryview(value).tobytes()
    with suppress(UnicodeDecodeError):
        text = raw.decode()
        if "\x00" not in text:
            return text
    return f"base64:{b64encode(raw).decode()}"


def _exception(copier: Copier, error: BaseException) -> str:
    name, message = _name_of(type(error)), str(error)
    return copier.text(f"{name}: {message}" if message else name)


def _sequence(copier: Copier, values: Iterable[Any], depth: int) -> list[Any]:
    return copier.array(copier.retake(lambda: values), depth)


def _set(copier: Copier, values: Iterable[Any], depth: int) -> list[Any]:
    return sorted(_sequence(copier, values, depth), key=_place_in_set)


def _place_in_set(plain: Any) -> tuple[float, bytes]:
    """Put numbers first, in their order, and the rest in that of its text."""
    number = plain if isinstance(plain, int | float) else math.inf
    return number, orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def _model(copier: Copier, model: BaseModel, depth: int) -> dict[str, Any]:
    known = type(model).model_fields
    shown = [
        (name, value)
        for name, value in dict.copy(model.__dict__).items()
        if name in known and not known[name].exclude
    ]
    return copier.mapping([*shown, *dict(model.__pydantic_extra__ or {}).items()], depth)


def _dataclass(copier: Copier, value: Any, depth: int) -> dict[str, Any]:
    pairs = [(field.name, getattr(value, field.name)) for field in fields(value)]
    return copier.mapping(pairs, depth)


def _mapping(copier: Copier, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    return copier.mapping(copier.retake(mapping.items), depth)


def _numbers(copier: Copier, value: Any, depth: int) -> Any:
    """Copy a scalar or array of NumPy, or of a library that follows it."""
    if getattr(value, "nbytes", 0) > 8 * _MOST_VALUES:
        return copier.placeholder(value)
    return copier.copy(value.tolist() if hasattr(value, "tolist") else value.item(), depth)


def _filler_for(kind: type, value: Any) -> Callable[[Copier, Any, int], Any]:
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass
    for abstract, fill in _ABSTRACT.items():
        if isinstance(value, abstract):
            return fill
    # Asked of its type: any object may have an attribute of that name, or make one up.
    if hasattr(kind, "dtype") and (hasattr(kind, "tolist") or hasattr(kind, "item")):
        return _numbers
    return lambda copier, value, _: copier.placeholder(value)


_SCALARS: Mapping[type, Callable[[Copier, Any], Any]] = {
    str: lambda copier, value: copier.text(str.__str__(value)),
    bool: lambda _, value: value,
    NoneType: lambda _, value: value,
    int: _integer,
    float: _float,
    Decimal: _decimal,
    datetime: lambda copier, value: copier.text(value.isoformat()),
    date: lambda copier, value: copier.text(value.isoformat()),
    time: lambda copier, value: copier.text(value.isoformat()),
    timedelta: lambda copier, value: _float(copier, value.total_seconds()),
    UUID: lambda _, value: UUID.__str__(value),
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    PurePath: lambda copier, value: copier.text(str(value)),
    BaseException: _exception,
    **dict.fromkeys((Secret, SecretBytes, SecretStr), lambda _, __: "**********"),
}

# The copies are made without another thread in between, and without a subclass's own methods.
_CONTAINERS: Mapping[type, Callable[[Copier, Any, int], Any]] = {
    dict: lambda copier, value, depth: copier.mapping(dict.copy(value).items(), depth),
    list: lambda copier, value, depth: copier.array(list.copy(value), depth),
    tuple: lambda copier, value, depth: copier.array(tuple.__iter__(value), depth),
    deque: lambda copier, value, depth: copier.array(deque.copy(value), depth),
    set: lambda copier, value, depth: _set(copier, set.copy(value), depth),
    frozenset: lambda copier, value, depth: _set(copier, frozenset.copy(value), depth),
    RootModel: lambda copier, value, depth: copier.copy(value.root, depth - 1),
    BaseModel: _model,
}

_ABSTRACT: Mapping[type, Callable[[Copier, Any, int], Any]] = {
    Mapping: _mapping,
    Set: _set,
    Sequence: _sequence,
    ValuesView: _sequence,
}
