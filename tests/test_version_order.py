"""Versions are ordered as Semantic Versioning 2.0.0 says, and other texts below them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentobs.versions import version_order

# The first of the lines are the examples of semver.org.
RISING = [
    "",
    "01.2.3",
    "1",
    "1.0",
    "1.0.0-",
    "1.0.0-01",
    "1.0.0-a..b",
    "1.0.0.0",
    "latest",
    "v1.0.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.9.0-1",
    "1.9.0--",
    "1.9.0-0a",
    "1.9.0-Z",
    "1.9.0-a",
    "1.9.0",
    "1.10.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "10.0.0",
    "99999999999999999999999.999999999999999999.99999999999999999",
    f"1{'0' * 5000}.0.0",
]


def test_versions_rise_by_precedence() -> None:
    shuffled = random.Random(1).sample(RISING, len(RISING))  # noqa: S311 (an order, no secret)

    assert sorted(shuffled, key=version_order) == RISING


@pytest.mark.parametrize(("older", "newer"), list(pairwise(RISING[:-1])))
def test_each_version_is_newer_than_the_one_before(older: str, newer: str) -> None:
    assert version_order(older) < version_order(newer)


def test_build_metadata_has_no_precedence_but_an_order() -> None:
    plain, first, second = map(version_order, ("1.0.0", "1.0.0+1", "1.0.0+a.b"))

    assert plain[:-1] == first[:-1] == second[:-1]
    assert plain < first < second < version_order("1.0.1")


@pytest.mark.parametrize("text", ["1.0.0\n", " 1.0.0", "1.0.0 ", "\uff11.0.0", "1.0.0-é", "1.0.0+"])
def test_what_only_looks_like_a_version_is_none(text: str) -> None:
    assert not version_order(text).is_semantic


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 3), min_size=2, max_size=5))
def test_releases_are_ordered_as_their_numbers(numbers: list[tuple[int, int, int]]) -> None:
    def text(each: tuple[int, int, int]) -> str:
        return ".".join(map(str, each))

    assert sorted(map(text, numbers), key=version_order) == list(map(text, sorted(numbers)))


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_two_texts_have_an_order(one: str, other: str) -> None:
    first, second = version_order(one), version_order(other)

    assert (first < second) + (first > second) + (one == other) == 1
