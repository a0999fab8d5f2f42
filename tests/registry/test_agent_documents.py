from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentobs.errors import DefinitionError
from agentobs.models import AgentStatus
from agentobs.registry import AgentDocument, parse_document, read_document
from agentobs.registry.documents import MAX_FILE_BYTES

PATH = Path("agents/reader.yaml")
EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"
STORABLE_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# YAML takes no more than 1024 characters for a key, and JSON writes up to twelve for one.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)


def parse(text: str) -> AgentDocument:
    return parse_document(text.encode(), PATH)


def failure(content: bytes | str) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        parse_document(content if isinstance(content, bytes) else content.encode(), PATH)
    assert caught.value.path == PATH
    return caught.value


def test_a_whole_definition_is_read_into_its_columns() -> None:
    content = b"""
schema_version: "2.0"
agent_type: specialist
domain: debugging
status: testing
agent_identity:
  name: agent-reader
  version: "3.1.0"
  title: Reader
  color: red
capabilities: {primary: [reading]}
activation_patterns: {explicit_triggers: [read], patterns: ['^read']}
metadata: {tags: [a, b]}
"""
    document = parse_document(content, PATH)

    assert document.agent_name == "agent-reader"
    assert document.agent_version == "3.1.0"
    assert document.agent_type == "specialist"
    assert document.domain == "debugging"
    assert document.status is AgentStatus.TESTING
    assert document.capabilities == ("reading",)
    assert document.triggers == ("read",)
    assert document.trigger_patterns == ("^read",)
    assert document.metadata == {
        "title": "Reader",
        "color": "red",
        "tags": ["a", "b"],
        "schema_version": "2.0",
    }
    assert document.config["agent_identity"]["version"] == "3.1.0"
    assert document.definition_hash == hashlib.sha256(content).hexdigest()
    assert document.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "agent_identity: {name: a}\nname: b",
        "name: a\nagent_name: b",
        "agent_name: a",
        "metadata: {name: a}",
        "agent_identity: {name: ''}\nname: a",
        "base: &base {name: a}\n<<: *base",
    ],
)
def test_the_name_is_looked_for_where_definitions_have_it(text: str) -> None:
    assert parse(text).agent_name == "a"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("version: 1.10", "1.10"),
        ("version: 1.0", "1.0"),
        ("version: 2", "2"),
        ("version: 1.2.3-rc.1", "1.2.3-rc.1"),
        ("agent_identity: {version: 2.0.0}", "2.0.0"),
        ("agent_version: '4'", "4"),
        ("metadata: {version: 0.1.0}", "0.1.0"),
        ("schema_version: 9.9.9", "1.0.0"),
        ("version: null", "1.0.0"),
    ],
)
def test_the_version_is_the_scalars_own_text(text: str, version: str) -> None:
    assert parse(f"name: a\n{text}").agent_version == version


@pytest.mark.parametrize("text", ["version: [1, 2]", "version:", "agent_identity: {version: {}}"])
def test_a_version_that_is_no_text_is_warned_about(text: str) -> None:
    (warning, *_) = (w for w in parse(f"name: a\n{text}").warnings if "version" in w)

    assert warning.startswith("line 2: ")
    assert warning.endswith("version is no version: '1.0.0' is stored")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("domain: a\nagent_identity: {domain: b}", "a"),
        ("agent_identity: {domain: b}", "b"),
        ("domain_context: c", "c"),
        ("domain_context: {primary: d}", "d"),
        ("x: 1", None),
    ],
)
def test_the_domain_may_be_missing(text: str, domain: str | None) -> None:
    assert parse(f"name: a\n{text}").domain == domain


def test_a_missing_type_capabilities_and_triggers_are_warned_about() -> None:
    document = parse("name: a")

    assert document.agent_type == "general"
    assert document.status is AgentStatus.ACTIVE
    assert len(document.warnings) == 3


def test_a_byte_order_mark_is_no_part_of_the_name() -> None:
    assert parse_document(b"\xef\xbb\xbfname: a", PATH).agent_name == "a"


def test_a_document_without_a_name_is_refused_with_the_places_looked_at() -> None:
    reason = failure("title: nobody").reason

    assert "names no agent" in reason
    assert "agent_identity.name" in reason


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"name: a\nx: \xff\n", 2, "is not UTF-8"),
        ("name: [", 1, "not valid YAML"),
        ("- name: a", None, "is no mapping"),
        ("just text", None, "is no mapping"),
        ("x: 1\nname: " + "a" * 256, 2, "agent_name holds at most 255 characters"),
        ("name: a\nversion: " + "1" * 51, 2, "agent_version holds at most 50 characters"),
        ("name: a\nagent_type: " + "t" * 101, 2, "agent_type holds at most 100 characters"),
        ("name: a\ndomain: " + "d" * 101, 2, "domain holds at most 100 characters"),
        ("name: a\nstatus: retired", 2, "active, deprecated, testing"),
        ('name: "a\\e[31m"', 1, "control character in name"),
        ("name: |\n  a\n  b", 1, "line break"),
    ],
)
def test_what_fits_no_row_is_refused_with_its_line(
    content: bytes | str, line: int | None, reason: str
) -> None:
    error = failure(content)

    assert reason in error.reason
    assert error.line == line


def test_a_refusal_quotes_nothing_of_the_document() -> None:
    canary = "c4n4ry"

    for text in (
        f"name: a\nstatus: {canary}",
        f"name: a\nversion: {canary * 20}",
        f'name: a\nx: "{canary}\\0"',
        f"name: a\nx: [{canary}",
    ):
        assert canary not in str(failure(text))


def test_the_document_stays_out_of_the_repr() -> None:
    assert "c4n4ry" not in repr(parse("name: a\nsecret: c4n4ry\ndescription: c4n4ry"))


def test_a_document_is_frozen() -> None:
    with pytest.raises(ValidationError):
        parse("name: a").agent_name = "b"  # type: ignore[misc]


def test_a_flood_of_warnings_is_cut() -> None:
    assert len(parse("name: a\n" + "x: 1\n" * 500).warnings) == 21


def test_a_file_over_the_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"name: a\n#" + b"x" * MAX_FILE_BYTES)

    with pytest.raises(DefinitionError, match=r"big\.yaml: is larger than"):
        read_document(path)


def test_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)

    with pytest.raises(DefinitionError, match="can't be read"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(DefinitionError, match="no regular file"):
        read_document(pipe)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_loads_without_a_warning(path: Path) -> None:
    document = read_document(path)

    assert document.agent_name == path.stem
    assert document.domain
    assert len(document.capabilities) >= 4
    assert len(document.triggers) >= 5
    assert document.warnings == ()


def test_without_the_extra_the_import_names_it() -> None:
    code = "import sys; sys.modules['yaml'] = None; from agentobs.registry import sync_folder"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert "Reading agent definitions needs the extra [cli]" in result.stderr


@given(st.binary() | STORABLE_TEXT.map(str.encode))
def test_any_file_either_loads_or_is_refused(content: bytes) -> None:
    with suppress(DefinitionError):
        parse_document(content, PATH)


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,40}", fullmatch=True),
    st.dictionaries(
        st.text("abc_", min_size=1),
        st.recursive(
            st.booleans() | st.integers() | STORABLE_TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
            max_leaves=20,
        ),
    ),
)
def test_any_mapping_with_a_name_is_kept_whole(name: str, rest: dict[str, Any]) -> None:
    definition = rest | {"agent_name": name}

    assert parse(json.dumps(definition)).config == definition
