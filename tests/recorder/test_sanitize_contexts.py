from __future__ import annotations

import hashlib
import json
from collections import UserDict
from typing import Any

import pytest

from agentobs.recorder.sanitize import MARKER, context_keys, encode_context, encode_json

LIMIT = 65_536


class Unreadable(UserDict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError


def stored(context: Any, limit: int = LIMIT) -> Any:
    return json.loads(encode_context(context, limit).text)


def test_a_clean_context_is_stored_as_it_is() -> None:
    context = {"number": 1, "none": None, "inner": {MARKER: "not at the top"}}

    assert encode_context(context, LIMIT) == encode_json(context)


def test_a_changed_context_tells_how_many_changes_there_are() -> None:
    encoded = encode_context({"a": "\x00\x00", "b": float("nan")}, LIMIT)

    assert json.loads(encoded.text) == {
        "a": "\ufffd\ufffd",
        "b": None,
        MARKER: {"sanitised": 3},
    }
    assert (encoded.changes, encoded.is_cut) == (3, False)


def test_the_size_is_that_of_the_content_without_the_marker() -> None:
    context = {"a": "\x00"}

    assert encode_context(context, LIMIT).size == encode_json(context).size


def test_a_context_at_the_limit_is_stored_whole() -> None:
    context = {"text": "ü" * 100}
    size = encode_json(context).size

    assert stored(context, size) == context
    assert encode_context(context, size - 1).is_cut


def test_of_a_large_context_are_left_its_size_hash_and_beginning() -> None:
    context = {"text": "🙂" * 3000, "number": 1}
    whole = encode_json(context).text

    encoded = encode_context(context, 100)

    assert json.loads(encoded.text) == {
        MARKER: {
            "cut": True,
            "size_bytes": len(whole.encode()),
            "sha256": hashlib.sha256(whole.encode()).hexdigest(),
            "preview": whole[:1024],
        }
    }
    assert encoded == (encoded.text, len(whole.encode()), 0, True)


def test_a_large_context_that_was_changed_tells_both() -> None:
    facts = stored({"text": "x" * 3000, "nul": "\x00"}, 100)[MARKER]

    assert (facts["cut"], facts["sanitised"]) == (True, 1)


def test_a_preview_may_end_within_an_escape() -> None:
    context = {"text": "x" * (1024 - len('{"text":"') - 1) + "\n" * 100}

    assert stored(context, 100)[MARKER]["preview"].endswith("x\\")


@pytest.mark.parametrize("number", [1, 2**70])
def test_a_key_of_the_host_that_is_the_markers_gets_a_suffix(number: int) -> None:
    context = {MARKER: "mine", f"{MARKER}~2": "too", "number": number}

    assert stored(context) == {
        f"{MARKER}~2": "mine",
        f"{MARKER}~2~2": "too",
        "number": number,
        MARKER: {"sanitised": 2},
    }


@pytest.mark.parametrize("context", [Unreadable(a=1), ["a"], "text", None])
def test_what_is_no_object_stands_under_a_key(context: Any) -> None:
    assert set(stored(context)) - {MARKER} == {"value"}
    assert context_keys(context) == ["value"]


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"a": {"b": 1}, "c": 2},
        {"a\x00": 1, "ü\ud800": 2, 3: 4, (5,): 6},
        {MARKER: 1, f"{MARKER}~2": 2},
        UserDict({"a": 1, MARKER: 2}),
    ],
)
def test_the_keys_are_those_that_are_stored(context: Any) -> None:
    assert set(context_keys(context)) == set(stored(context)) - (
        {MARKER} if encode_context(context, LIMIT).changes else set()
    )


def test_a_value_that_jsonb_may_not_hold_is_cut_whatever_the_limit() -> None:
    text = "x" * 34_000_000

    assert encode_json(text).is_cut
    assert encode_context({"text": text}, 10**9).is_cut
