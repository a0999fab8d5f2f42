from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentobs.registry.extraction import (
    MAX_ENTRIES,
    MAX_PHRASE_CHARACTERS,
    extract_capabilities,
    extract_triggers,
)
from agentobs.registry.yaml_reader import parse_yaml

WRITTEN = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["capabilities", "activation_patterns", "triggers", "patterns", "name", "primary"]
            )
            | st.text(),
            inner,
            max_size=4,
        )
    ),
)


def read(text: str) -> dict[str, Any]:
    written: dict[str, Any] = parse_yaml(text).written
    return written


def capabilities(text: str) -> list[str]:
    return list(extract_capabilities(read(text)).entries)


def phrases(text: str) -> list[str]:
    return list(extract_triggers(read(text)).phrases.entries)


def patterns(text: str) -> list[str]:
    return list(extract_triggers(read(text)).patterns.entries)


@pytest.mark.parametrize(
    "text",
    [
        "capabilities: [api_design, code review]",
        "capabilities: {primary: [api_design], secondary: [code review]}",
        "capabilities: {core: {design: [api_design]}, specialized: {review: [code review]}}",
        "capabilities: [{name: api_design, description: Draws}, {name: code review}]",
        "capabilities: {api_design: true, code review: true, drawing: false}",
        "capabilities: {api_design: Draws interfaces, code review: Reads changes}",
        "capabilities: {api_design: {description: D, tools: [t]}, code review: {level: high}}",
        "capabilities: {api_design: {enabled: true}, old: {enabled: false}, code review: true}",
        "capabilities: ['api_design: draws', 'code review: reads']",
        "capabilities: [{api_design: draws}, {code review: reads}]",
        "capabilities: {primary: api_design, secondary: code review}",
        "agent_capabilities: [api_design, code review]",
        "agent_identity: {capabilities: [api_design, code review]}",
    ],
)
def test_every_shape_of_capabilities_is_read_to_the_same_list(text: str) -> None:
    assert capabilities(text) == ["api_design", "code review"]


def test_what_stands_among_capabilities_without_being_one_is_left_out() -> None:
    text = """
    capabilities:
      description: All that it can do
      primary: [indexing]
      limitations: [writes nothing]
      output_formats: [json]
      validation_rules: {strict: [no Any]}
    """

    assert capabilities(text) == ["indexing"]


def test_capabilities_keep_their_order_and_stand_once_whatever_their_case() -> None:
    text = "capabilities: {primary: [b, ' a  c ', ''], secondary: [B, A C, d]}"

    assert capabilities(text) == ["b", "a c", "d"]


def test_a_colon_within_parentheses_does_not_end_a_capability() -> None:
    assert capabilities("capabilities: ['typing (x: int, -> int)']") == ["typing (x: int, -> int)"]


@pytest.mark.parametrize(
    "text",
    [
        "activation_patterns: {explicit_triggers: [deploy], context_triggers: [ship it]}",
        "activation_patterns: {automatic_triggers: [deploy, ship it]}",
        "activation_patterns: {automatic_triggers: {keywords: [deploy, ship it]}}",
        "activation_patterns: {automatic_triggers: {keywords: {primary: [deploy], b: [ship it]}}}",
        "activation_patterns: {automatic_triggers: {first_keywords: [deploy], keywords: ship it}}",
        "activation_patterns: {domain_keywords: [deploy], context_patterns: [ship it]}",
        "activation_patterns: {trigger_conditions: {keywords: [deploy, ship it], files: ['*.md']}}",
        "activation_patterns: {tool_integration: {auto_invoke_patterns: [deploy, ship it]}}",
        "activation_patterns: [deploy, ship it]",
        "activation_triggers: {primary: [deploy], contextual: [ship it]}",
        "activation_triggers: [deploy, ship it]",
        "activation_keywords: [deploy, ship it]",
        "activation: {phrases: [deploy, ship it]}",
        "routing: {triggers: [deploy, ship it]}",
        "triggers: [deploy, ship it]",
        "trigger_phrases: [deploy, ship it]",
        "keywords: [deploy, ship it]",
        "triggers: [{phrase: deploy, weight: 0.9}, {keyword: ship it, description: Releases}]",
    ],
)
def test_every_shape_of_triggers_is_read_to_the_same_list(text: str) -> None:
    assert phrases(text) == ["deploy", "ship it"]


def test_triggers_of_something_else_and_prose_are_left_out() -> None:
    text = """
    activation_patterns:
      explicit_triggers: [deploy]
      collaboration_triggers: [hand over to the tester]
      negative_triggers: [rollback]
      context_requirements: [a running cluster]
      success_indicators: [no errors]
      delegation_patterns: {testing: agent-test-author}
      routing_patterns: {primary: deployment}
      trigger_conditions: {file_patterns: ['**/*.tf'], contexts: [infrastructure]}
    escalation_triggers: [outage]
    usage_examples: [{trigger: deploy the site}]
    """

    assert phrases(text) == ["deploy"]
    assert patterns(text) == []


def test_triggers_that_look_like_other_types_stay_as_they_are_written() -> None:
    text = "triggers: [on, no, 404, 3.10, 2025-11-10, true]"

    assert phrases(text) == ["on", "no", "404", "3.10", "2025-11-10"]


@pytest.mark.parametrize(
    "text",
    [
        r"activation_patterns: {patterns: ['\bAPI\b', 'v\d+']}",
        r"activation_patterns: {regex: ['\bAPI\b', 'v\d+']}",
        r"trigger_patterns: ['\bAPI\b', 'v\d+']",
        r"triggers: [{pattern: '\bAPI\b'}, {regex: 'v\d+'}]",
        r"triggers: {phrases: [], patterns: ['\bAPI\b', 'v\d+', '\bAPI\b']}",
    ],
)
def test_every_shape_of_patterns_is_read_to_the_same_list(text: str) -> None:
    assert patterns(text) == [r"\bAPI\b", r"v\d+"]
    assert phrases(text) == []


def test_patterns_outside_of_the_activation_are_no_trigger_patterns() -> None:
    assert patterns("patterns: [singleton]\napi_design_patterns: {rest: [resources]}") == []


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "  ", "x" * 501, "**/*.py"])
def test_a_pattern_that_does_not_compile_is_left_out_with_a_warning(pattern: str) -> None:
    extracted = extract_triggers({"trigger_patterns": [pattern, "ok"]}).patterns

    assert extracted.entries == ("ok",)
    assert len(extracted.warnings) == 1


def test_a_pattern_that_compiles_with_a_warning_is_stored() -> None:
    assert extract_triggers({"trigger_patterns": ["[[a]"]}).patterns.entries == ("[[a]",)


def test_prose_and_a_flood_of_entries_are_bounded_with_warnings() -> None:
    prose = "word " * MAX_PHRASE_CHARACTERS
    many = [f"tag {number}" for number in range(MAX_ENTRIES + 5)]

    extracted = extract_capabilities({"capabilities": [prose, *many]})

    assert extracted.entries == tuple(many[:MAX_ENTRIES])
    assert len(extracted.warnings) == 2


@given(WRITTEN)
def test_whatever_the_shape_entries_are_tidy_and_patterns_compile(value: Any) -> None:
    document = {"capabilities": value, "activation_patterns": value, "trigger_patterns": value}
    triggers = extract_triggers(document)

    for entry in (*extract_capabilities(document).entries, *triggers.phrases.entries):
        assert entry == " ".join(entry.split())
        assert 0 < len(entry) <= MAX_PHRASE_CHARACTERS
    for pattern in triggers.patterns.entries:
        re.compile(pattern)
