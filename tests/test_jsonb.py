from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentobs.jsonb import decode, encode, require_storable_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


CANARY = "canary-5f2d0c8e"


class Shade(Enum):
    DARK = "dark"
    NUL = f"{CANARY}\x00"
    NOT_A_NUMBER = float("nan")


@dataclass
class Point:
    label: str


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@given(document=DOCUMENTS)
def test_what_is_encoded_is_decoded_as_it_was(document: object) -> None:
    assert decode(encode(document)) == document


@given(document=DOCUMENTS)
def test_the_text_is_json_for_any_other_reader(document: object) -> None:
    assert json.loads(encode(document)) == document


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**100 + 1]
)
def test_an_integer_keeps_every_digit_beside_any_other_value(number: int) -> None:
    document = {"number": number, "ratio": 0.1, "items": [None, True, "ü"]}

    assert decode(encode(document)) == document
    assert str(number) in encode(document)


@pytest.mark.parametrize("companion", [1, 2**70])
@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime(2025, 1, 1, tzinfo=UTC), "2025-01-01T00:00:00+00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Shade.DARK, "dark"),
        ((1, 2), [1, 2]),
    ],
)
def test_a_value_is_stored_alike_whatever_integer_stands_beside_it(
    companion: int, value: object, stored: object
) -> None:
    assert decode(encode([value, companion])) == [stored, companion]


@pytest.mark.parametrize("companion", [1, 2**70])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "no NaN or infinity"),
        (float("-inf"), "no NaN or infinity"),
        (Shade.NOT_A_NUMBER, "no NaN or infinity"),
        (f"{CANARY}\x00", "no U\\+0000"),
        ({f"{CANARY}\x00": 1}, "no U\\+0000"),
        (Shade.NUL, "no U\\+0000"),
        (f"{CANARY}\ud800", "no lone surrogates"),
        ({f"{CANARY}\udfff": 1}, "no lone surrogates"),
    ],
)
def test_what_jsonb_can_not_hold_is_refused_and_not_quoted(
    companion: int, value: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        encode({"deep": [value, companion]})

    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["null", '\\u0000 and "null"', "\\ud800"])
def test_text_that_only_looks_like_trouble_passes(text: str) -> None:
    assert decode(encode({"text": text, "none": None})) == {"text": text, "none": None}


@pytest.mark.parametrize("value", [{1}, b"bytes", Decimal("1.1"), object(), Point("x"), 1j])
@pytest.mark.parametrize("companion", [1, 2**70])
def test_a_type_that_json_does_not_know_is_named(companion: int, value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        encode([value, companion])


def test_a_value_that_holds_itself_is_refused() -> None:
    document: dict[str, Any] = {}
    document["self"] = document

    with pytest.raises(ValueError, match="nor hold itself"):
        encode(document)


def test_a_value_that_nests_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="must not nest that deep"):
        encode(nested(100_000))


def test_a_value_that_nests_deeper_than_the_fast_encoder_goes_is_stored() -> None:
    assert decode(encode(nested(300))) == nested(300)


def test_keys_become_text() -> None:
    assert decode(encode({1: "a", None: "b", UUID(int=0): "c"})) == {
        "1": "a",
        "null": "b",
        "00000000-0000-0000-0000-000000000000": "c",
    }


def test_text_of_any_other_kind_is_storable() -> None:
    require_storable_text("\x01\x7f\ufffe\U0010ffff")
