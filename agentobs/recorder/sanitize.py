"""What a host hands over, as JSON text that jsonb stores: any value, and no exception.

orjson holds borrowed references while it runs the Python code of enums and time zones: an error in
that code, or a thread that changes the value meanwhile, would end the process. So it sees only
values that run no Python code, or a copy that is made of such.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from agentobs.recorder.plain_copy import DEEPEST, Copier, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "MARKER",
    "EncodedJson",
    "context_keys",
    "encode_context",
    "encode_json",
    "hash_json",
    "sanitize_text",
]

MARKER = "_agentobs"
"""The key of a context under which stands what was done to it; a host's own key is renamed."""

# PostgreSQL reads at most 2^24 elements of an array, which are two bytes or more each. The other
# bound, less than 2^28 bytes of jsonb, is farther: a short number takes six times its text there.
_LARGEST = 2**25

_PREVIEW_CHARACTERS = 1024
_BACKSLASH = ord("\\")
_LEAVES = frozenset({str, int, bool, NoneType, UUID, date})


class EncodedJson(NamedTuple):
    """JSON text, and what was done to the value on the way.

    `size` is that of the whole value in bytes of UTF-8, without what stands under MARKER. `changes`
    counts values, keys and characters that are not told as they were; a conversion that loses
    nothing (a UUID, a set) is none.
    """

    text: str
    size: int
    changes: int
    is_cut: bool


def encode_json(value: Any, *, sort_keys: bool = False) -> EncodedJson:
    """Encode any value; what is larger than jsonb surely holds is cut, as a context is."""
    encoded, changes = _encode(value, sort_keys=sort_keys)
    if len(encoded) > _LARGEST:
        return _cut(encoded, changes)
    return EncodedJson(encoded.decode(), len(encoded), changes, False)


def encode_context(context: Mapping[Any, Any], limit: int) -> EncodedJson:
    """Encode a context as an object that tells, under MARKER, what was changed or cut.

    Of one with more than `limit` bytes only size, hash and beginning are left. A key MARKER of the
    host itself gets a suffix. What turns out to be no object stands under the key `value`.
    """
    encoded, changes = _encode(context, is_context=True)
    if len(encoded) > min(limit, _LARGEST):
        return _cut(encoded, changes)
    text = encoded.decode()
    if changes:
        text = f'{text[:-1]},"{MARKER}":{{"sanitised":{changes}}}}}'
    return EncodedJson(text, len(encoded), changes, False)


def hash_json(value: Any) -> str:
    """Compute the SHA-256 of the JSON text with sorted keys, in hexadecimal digits."""
    encoded, _ = _encode(value, sort_keys=True)
    return hashlib.sha256(encoded).hexdigest()


def context_keys(context: Mapping[Any, Any]) -> list[str]:
    """List the names at the top level, as `encode_context` writes them, without MARKER."""
    copier = Copier(reserved=(MARKER,))
    if type(context) is dict:
        return copier.names(list(context), copier.reserved)
    plain = copier.copy(context)
    return list(plain) if isinstance(plain, dict) else ["value"]


def _encode(value: Any, *, sort_keys: bool = False, is_context: bool = False) -> tuple[bytes, int]:
    option, changes = orjson.OPT_SORT_KEYS if sort_keys else 0, 0
    encoded = _encode_plain(value, option, is_context=is_context)
    if encoded is None:
        copier = Copier((MARKER,) if is_context else ())
        encoded = orjson.dumps(copier.copy(value), option=option)
        changes = copier.changes
    if is_context and not encoded.startswith(b"{"):
        encoded = b'{"value":%b}' % encoded
    return encoded, changes


def _encode_plain(value: Any, option: int, *, is_context: bool) -> bytes | None:
    """Encode what needs no copy; None for what does."""
    try:
        if not _is_plain((value,)) or (is_context and MARKER in value):
            return None
        encoded = orjson.dumps(value, option=option)
    except Exception:  # noqa: BLE001 (another thread changes it, or its types raise anything)
        return None
    # Most texts have no escape at all, which is told sooner.
    return None if _BACKSLASH in encoded and b"\\u0000" in encoded else encoded


def _is_plain(values: Iterable[Any], levels: int = DEEPEST) -> bool:
    """Tell whether orjson runs no Python code for them, and writes them as it does their copy."""
    for value in values:
        kind = type(value)
        if kind in _LEAVES:
            continue
        if kind is dict or kind is list or kind is tuple:
            inner = value.values() if kind is dict else value
            if not levels or not _is_plain(inner, levels - 1):
                return False
        elif kind is float:
            # NaN and infinities are no distance of 0 from themselves.
            if value - value != 0:
                return False
        # orjson drops the seconds of an offset.
        elif kind is not datetime or not (value.tzinfo is UTC or value.tzinfo is None):
            return False
    return True


def _cut(encoded: bytes, changes: int) -> EncodedJson:
    size = len(encoded)
    facts: dict[str, Any] = {
        "cut": True,
        "size_bytes": size,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        # No character has more than four bytes.
        "preview": encoded[: 4 * _PREVIEW_CHARACTERS].decode(errors="ignore")[:_PREVIEW_CHARACTERS],
    }
    if changes:
        facts["sanitised"] = changes
    return EncodedJson(orjson.dumps({MARKER: facts}).decode(), size, changes, True)
