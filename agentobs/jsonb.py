"""Python values to JSON text for PostgreSQL's jsonb, and back."""

from __future__ import annotations

import json
import math
import re
from enum import Enum
from typing import Any

import orjson

# A dataclass passes to the error below, so that the walk for unstorable values sees every value.
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS

# orjson reads integers over 64 bits as floats, without a word; those have 19 digits or more.
_BIG_NUMBER = re.compile(r"\d{19}")

_FINITE_ONLY = json.JSONEncoder(allow_nan=False)


def encode(value: Any) -> str:
    """Encode `value` as JSON text that jsonb stores without loss.

    Integers of any size keep their digits; datetimes, UUIDs and enums become strings. Raises
    ValueError for what jsonb can't hold (U+0000, lone surrogates, NaN, infinities, a value that
    holds itself) and TypeError for a type that JSON does not know.
    """
    try:
        encoded = orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return _encode_slowly(value)
    # orjson writes NaN and infinities as null, and U+0000 as an escape that jsonb refuses: only
    # a document that shows a trace of either pays for a second look, and the first is the cheaper.
    if b"\\u0000" in encoded or (b"null" in encoded and not _holds_finite_numbers_only(value)):
        _require_storable(value)
    return encoded.decode()


def decode(text: str) -> Any:
    """Decode JSON text; integers of any size come back as they were stored."""
    if _BIG_NUMBER.search(text):
        return json.loads(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # jsonb stores numbers such as 1e400 that no double holds.
        return json.loads(text)


def _holds_finite_numbers_only(value: Any) -> bool:
    """Tell it where the standard library's encoder can; False leaves it to the walk."""
    try:
        _FINITE_ONLY.encode(value)
    except (RecursionError, TypeError, ValueError):
        return False
    return True


def _encode_slowly(value: Any) -> str:
    """Encode with the standard library what orjson refuses, or raise what is wrong with it."""
    try:
        _require_storable(value)
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
    except RecursionError:
        raise ValueError("must not nest that deep, nor hold itself") from None


def _plain(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value, option=_OPTIONS))


def _require_storable(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key)
            _require_storable(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_storable(item)
    elif isinstance(value, str):
        require_storable_text(value)
    elif isinstance(value, Enum):
        _require_storable(value.value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must hold no NaN or infinity, which JSON does not know: use None")


def require_storable_text(text: str) -> None:
    """Raise ValueError for text that no PostgreSQL column holds: U+0000 and lone surrogates."""
    if "\x00" in text:
        raise ValueError("must hold no U+0000, which PostgreSQL does not store: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        # The codec's error carries the text.
        raise ValueError("must hold no lone surrogates: decode the text properly") from None
