from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentobs.jsonb import encode
from agentobs.registry.yaml_reader import MAX_DEPTH, YamlProblemError, parse_yaml

STORABLE_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# YAML takes no more than 1024 characters for a key, and JSON writes up to twelve for one.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | STORABLE_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


def values_of(text: str) -> Any:
    return parse_yaml(text).values


def problem_of(text: str) -> YamlProblemError:
    with pytest.raises(YamlProblemError) as caught:
        parse_yaml(text)
    return caught.value


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n", "NO", "Off"])
def test_words_that_older_yaml_takes_for_booleans_stay_text(word: str) -> None:
    assert values_of(f"triggers: [{word}]") == {"triggers": [word]}


@pytest.mark.parametrize("text", ["2025-11-10", "2025-11-10T08:00:00Z", "12:30:45", "1_000", "0b1"])
def test_dates_and_sexagesimal_numbers_stay_text(text: str) -> None:
    assert values_of(f"value: {text}") == {"value": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("1" * 40, int("1" * 40)),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert values_of(f"value: {text}") == {"value": value}


def test_numbers_keep_their_spelling_in_the_written_tree() -> None:
    parsed = parse_yaml("version: 1.10\ncodes: [0x1F, 007]\nflag: true\nnothing: null")

    assert parsed.written == {
        "version": "1.10",
        "codes": ["0x1F", "007"],
        "flag": True,
        "nothing": None,
    }


def test_keys_become_text_as_they_are_written() -> None:
    assert values_of("1: a\n1.10: b\non: c\nnull: d\n") == {
        "1": "a",
        "1.10": "b",
        "on": "c",
        "null": "d",
    }


def test_a_repeated_key_takes_the_last_value_and_warns_with_its_line() -> None:
    parsed = parse_yaml("mode: full\nname: a\nmode: both\ninner:\n  x: 1\n  x: 2\n")

    assert parsed.values == {"mode": "both", "name": "a", "inner": {"x": 2}}
    assert parsed.warnings == (
        "line 3: key 'mode' stands twice; the last one counts",
        "line 6: key 'x' stands twice; the last one counts",
    )


def test_aliases_stand_for_what_they_name() -> None:
    assert values_of("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_a_mappings_own_keys_win_over_merged_ones() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {x: 5, z: 3}\nitem: {x: 9, <<: [*b, *m]}"

    assert values_of(text)["item"] == {"x": 9, "y": 2, "z": 3}


def test_an_anchor_that_contains_itself_is_refused() -> None:
    problem = problem_of("name: a\nloop: &x [1, *x]\n")

    assert (problem.line, problem.reason) == (2, "holds an anchor that contains itself")


def test_a_billion_laughs_are_refused_at_once() -> None:
    laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    start = time.perf_counter()

    assert "expands to more than" in problem_of("\n".join(laughs)).reason
    assert time.perf_counter() - start < 1


def test_merge_keys_multiply_no_faster_than_aliases() -> None:
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]

    assert "expands to more than" in problem_of("\n".join(merges)).reason


def test_deep_nesting_is_refused_in_the_text_and_through_aliases() -> None:
    chain = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, MAX_DEPTH + 5))]

    assert "nests deeper" in problem_of("[" * 50_000).reason
    assert "nests deeper" in problem_of("\n".join(chain)).reason


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("name: a\n  bad: [\n", 2, "not valid YAML"),
        ("name: a\n\tx: 1\n", 2, "not valid YAML"),
        ("name: *nobody\n", 1, "not valid YAML"),
        ("name: a\n---\nname: b\n", 2, "several documents"),
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
        ("name: a\nx: !!python/object/apply:os.system [ls]\n", 2, "tag '!!python"),
        ("name: a\nx: !secret y\n", 2, "tag '!secret'"),
        ("name: a\nx: !!set {b}\n", 2, "tag '!!set'"),
        ("name: a\nx: !!int twelve\n", 2, "!!int"),
        ("name: a\n? [b, c]\n: d\n", 2, "as a key"),
        ("name: a\nx: .nan\n", 2, "NaN"),
        ("name: a\nx: -.inf\n", 2, "NaN"),
        ("name: a\nx: 1e400\n", 2, "too large for JSON"),
        ("name: a\nx: " + "9" * 5000, 2, "more than 1000 digits"),
        ('name: a\nx: "\\0"\n', 2, "U+0000"),
        ('name: a\n"\\0": x\n', 2, "U+0000"),
        ('name: a\nx: "\\ud800"\n', 2, "lone surrogates"),
        ("name: a\nx: \x01\n", 2, "control character"),
        ('name: a\nx: "\\UFFFFFFFF"\n', None, "out of range"),
        ("%YAML 1" + "1" * 5000 + ".1\n---\na: 1\n", None, "not valid YAML"),
        ("name: a\n<<: text\n", 2, "merges"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_line(
    text: str, line: int | None, reason: str
) -> None:
    problem = problem_of(text)

    assert reason in problem.reason
    assert problem.line == line


def test_a_json_escape_pair_is_one_character() -> None:
    assert values_of('{"face": "\\ud83d\\ude00"}') == {"face": "\N{GRINNING FACE}"}


@given(JSON_VALUES)
def test_any_json_document_reads_as_itself(value: Any) -> None:
    read = values_of(json.dumps({"name": value}))["name"]

    assert read == value or (isinstance(value, float) and math.isclose(read, value))


@given(st.text() | st.text(st.sampled_from("-?:,[]{}#&*!|>'\"%@` \n\tab01.~<\\xu")))
def test_any_text_either_reads_as_storable_values_or_is_refused(text: str) -> None:
    with suppress(YamlProblemError):
        assert encode(parse_yaml(text).values)
