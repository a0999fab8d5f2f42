from __future__ import annotations

import json
from collections import UserDict, deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from agentobs.recorder.sanitize import (
    MARKER,
    context_keys,
    encode_context,
    encode_json,
    hash_json,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Shade(Enum):
    DARK = "dark"
    NOT_A_NUMBER = float("nan")
    NUL = "\x00"


@dataclass
class Box:
    held: object


class Model(BaseModel):
    held: Any


class Broken(UserDict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[])) | st.sampled_from(
    ["\x00", "\ud800", "\\u0000", MARKER, f"{MARKER}~2", "1", "null"]
)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    st.decimals().filter(lambda number: not number.is_snan()),
    st.sampled_from(["1E+4299", "1E-16383", "-9E+9999", "0E+9"]).map(Decimal),
    ANY_TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(Shade),
    st.just(PurePosixPath("/\udcff")),
)
LEAVES = st.one_of(
    HASHABLE,
    st.builds(bytearray, st.binary(max_size=20)),
    st.builds(ValueError, ANY_TEXT),
    st.builds(SecretStr, ANY_TEXT),
    st.builds(object),
    st.builds(Broken),
    st.sets(HASHABLE, max_size=4),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(deque),
        st.dictionaries(HASHABLE | st.tuples(HASHABLE), inner, max_size=4),
        st.dictionaries(ANY_TEXT, inner, max_size=4).map(UserDict),
        st.builds(Box, inner),
        st.builds(lambda held: Model.model_construct(held=held), inner),
    ),
    max_leaves=20,
)
CONTEXTS = st.dictionaries(HASHABLE, VALUES, max_size=6)


def exactly(encoded: str) -> Any:
    """Decode numbers as what they are written, which is how jsonb compares them."""
    return json.loads(encoded, parse_int=Decimal, parse_float=Decimal)


def refuse(name: str) -> None:
    raise AssertionError(name)


def require_storable(value: Any) -> None:
    if isinstance(value, str):
        assert "\x00" not in value
        value.encode()
    elif isinstance(value, dict):
        require_storable([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            require_storable(item)


@given(value=VALUES)
def test_any_value_becomes_json_of_storable_text(value: object) -> None:
    encoded = encode_json(value)

    require_storable(json.loads(encoded.text, parse_constant=refuse))
    assert encoded.size == len(encoded.text.encode())


@given(value=VALUES)
def test_a_value_is_encoded_and_hashed_alike_every_time(value: object) -> None:
    assert encode_json(value) == encode_json(value)
    assert hash_json(value) == hash_json(value)


@given(value=VALUES)
def test_what_was_encoded_is_encoded_again_without_a_change(value: object) -> None:
    once = json.loads(encode_json(value, sort_keys=True).text, parse_float=Decimal)

    assert encode_json(once).changes == 0


@given(value=VALUES)
def test_a_value_is_encoded_alike_whichever_way_it_takes(value: object) -> None:
    copied = encode_json([value, object()])

    assert copied.text == f'[{encode_json(value).text},"<object>"]'
    assert copied.changes == encode_json(value).changes + 1


@given(context=CONTEXTS, limit=st.integers(0, 2000))
def test_a_context_says_what_was_done_to_it(context: dict[Any, Any], limit: int) -> None:
    encoded = encode_context(context, limit)
    marker = json.loads(encoded.text).get(MARKER, {})

    assert encoded.is_cut is (encoded.size > limit) is marker.get("cut", False)
    assert marker.get("sanitised", 0) == encoded.changes


@given(context=CONTEXTS)
def test_the_keys_of_a_context_are_those_that_are_stored(context: dict[Any, Any]) -> None:
    stored = json.loads(encode_context(context, 10**6).text)

    assert [key for key in stored if key != MARKER] == context_keys(context)


@given(values=st.dictionaries(ANY_TEXT, VALUES, max_size=6))
def test_the_order_of_keys_does_not_matter_to_the_hash(values: dict[str, Any]) -> None:
    clean = {f"{number} {key!a}": value for number, (key, value) in enumerate(values.items())}

    assert hash_json(clean) == hash_json(dict(reversed(clean.items())))


async def test_postgresql_stores_every_document_as_it_was_encoded(session: AsyncSession) -> None:
    documents: list[str] = []

    @settings(max_examples=400, database=None, suppress_health_check=list(HealthCheck))
    @given(context=CONTEXTS, limit=st.sampled_from([50, 10**6]))
    def collect(context: dict[Any, Any], limit: int) -> None:
        documents.append(encode_context(context, limit).text)
        documents.append(encode_json(context).text)

    collect()
    rows = await session.execute(
        text(
            "SELECT CAST(CAST(document AS jsonb) AS text) FROM unnest(CAST(:documents AS text[])) "
            "WITH ORDINALITY AS given (document, place) ORDER BY place"
        ),
        {"documents": documents},
    )

    assert [exactly(row[0]) for row in rows] == [exactly(document) for document in documents]
