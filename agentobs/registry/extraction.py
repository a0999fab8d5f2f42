"""What a router can use of a definition: capabilities, trigger phrases, trigger patterns.

Definitions come in many shapes; these functions read them all by what their keys are called. They
take the document with its scalars as written (text, booleans and None).
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PHRASE_CHARACTERS = 200
"""The longest phrase that is stored: PostgreSQL's GIN index takes no array element over 2.7 kB."""

MAX_PATTERN_CHARACTERS = 500
"""The longest regular expression that is stored, for the same reason."""

MAX_ENTRIES = 200
"""How many capabilities, phrases or patterns one agent may have."""

CAPABILITY_PATHS = ("capabilities", "agent_capabilities", "agent_identity.capabilities")
ACTIVATION_SECTIONS = ("activation_patterns", "activation", "routing")

_PHRASE_WORDS = frozenset({"trigger", "triggers", "keyword", "keywords", "phrase", "phrases"})
_PHRASE_KEYS = frozenset({"context_patterns", "auto_invoke_patterns"})
_PATTERN_WORDS = frozenset({"regex", "regexes", "regexp", "regexps"})
_PATTERN_KEYS = frozenset({"pattern", "patterns", "trigger_pattern", "trigger_patterns"})
_ACTIVATION_WORDS = frozenset({"trigger", "triggers", "activation"})

# Triggers of something else than the choice of this agent.
_FOREIGN_WORDS = frozenset(
    {
        "anti", "collaboration", "delegation", "error", "escalation", "exclude", "excluded",
        "exclusion", "fallback", "handoff", "negative", "not",
    }
)  # fmt: skip
_CONDITION_WORDS = frozenset(
    {
        "condition", "conditions", "extensions", "files", "globs", "indicators", "paths",
        "patterns", "requirements",
    }
)  # fmt: skip

# What stands among the capabilities without being one.
_DETAIL_WORDS = frozenset(
    {
        "constraints", "dependencies", "description", "examples", "exclusions", "formats",
        "integrations", "level", "limitations", "limits", "note", "notes", "overview", "purpose",
        "requirements", "rules", "summary", "tools", "version",
    }
)  # fmt: skip
_GROUP_WORDS = frozenset(
    {"additional", "core", "main", "primary", "secondary", "specialized", "tertiary"}
)
_NAMING_KEYS = ("name", "capability", "skill", "title", "id")
_PHRASE_FIELDS = frozenset({"trigger", "phrase", "keyword", "text", "name", "value", "match"})
_SWITCHES = ("enabled", "supported", "available")

Kind = Literal["phrase", "pattern"]


class Extracted(NamedTuple):
    """Entries in the order of the document, each once, and what was left out of it."""

    entries: tuple[str, ...]
    warnings: tuple[str, ...]


class Triggers(NamedTuple):
    """What makes the router choose an agent."""

    phrases: Extracted
    patterns: Extracted


def dig(document: Any, path: str) -> Any:
    """Return what stands at the dotted `path`, or None."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def extract_capabilities(document: dict[str, Any]) -> Extracted:
    """Return the capability tags and phrases of a definition."""
    found = [phrase for path in CAPABILITY_PATHS for phrase in _capabilities(dig(document, path))]
    return _phrases(map(_headline, found), "capability")


def extract_triggers(document: dict[str, Any]) -> Triggers:
    """Return the trigger phrases and the regular expressions of a definition."""
    found = list(_triggers(document))
    return Triggers(
        _phrases((text for kind, text in found if kind == "phrase"), "trigger"),
        _patterns(text for kind, text in found if kind == "pattern"),
    )


def _capabilities(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _keyed_capabilities(value)
    elif isinstance(value, list):
        for item in value:
            name = _name_of(item)
            yield from [name] if name else _capabilities(item)


def _name_of(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    return next((item[key] for key in _NAMING_KEYS if isinstance(item.get(key), str)), None)


def _keyed_capabilities(mapping: dict[str, Any]) -> Iterator[str]:
    for key, value in mapping.items():
        words = _words(key)
        if not words or words[-1] in _DETAIL_WORDS or _is_switched_off(value):
            continue
        if value is True or (_GROUP_WORDS.isdisjoint(words) and _is_described(value)):
            yield key
        else:
            yield from _capabilities(value)


def _is_described(value: Any) -> bool:
    """Whether the value tells about one capability, which then goes by its key."""
    if isinstance(value, dict):
        return any(isinstance(item, str) for item in value.values()) or _switch(value) is True
    return isinstance(value, str)


def _is_switched_off(value: Any) -> bool:
    return value is False or (isinstance(value, dict) and _switch(value) is False)


def _switch(mapping: dict[str, Any]) -> Any:
    return next((mapping[key] for key in _SWITCHES if key in mapping), None)


def _headline(phrase: str) -> str:
    """Return the `Fetch data` of `Fetch data: from many sources`."""
    head, _, _ = phrase.partition(": ")
    return phrase if "(" in head else head


def _triggers(document: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    for key, value in document.items():
        if key in ACTIVATION_SECTIONS:
            yield from _section_triggers(value)
        elif key == "keywords" or not _ACTIVATION_WORDS.isdisjoint(_words(key)):
            kind = _kind_of(key)
            yield from _texts(value, kind) if kind else ()


def _section_triggers(value: Any) -> Iterator[tuple[Kind, str]]:
    if not isinstance(value, dict):
        yield from _texts(value, "phrase")
        return
    for key, item in value.items():
        kind = _kind_of(key)
        if kind:
            yield from _texts(item, kind)
        elif isinstance(item, dict) and _FOREIGN_WORDS.isdisjoint(_words(key)):
            yield from _section_triggers(item)


def _kind_of(key: str) -> Kind | None:
    words = _words(key)
    if not words or not _FOREIGN_WORDS.isdisjoint(words):
        return None
    if key in _PATTERN_KEYS or not _PATTERN_WORDS.isdisjoint(words):
        return "pattern"
    return "phrase" if key in _PHRASE_KEYS or words[-1] in _PHRASE_WORDS else None


def _texts(value: Any, kind: Kind) -> Iterator[tuple[Kind, str]]:
    if isinstance(value, str):
        yield kind, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _keyed_texts(key, item, kind)


def _keyed_texts(key: str, value: Any, kind: Kind) -> Iterator[tuple[Kind, str]]:
    """Yield from groups of triggers, and from triggers that carry a weight or a description."""
    words = _words(key)
    own_kind = _kind_of(key)
    if own_kind:
        yield from _texts(value, own_kind)
    elif not words or words[-1] in _CONDITION_WORDS or not _FOREIGN_WORDS.isdisjoint(words):
        return
    elif not isinstance(value, str) or key in _PHRASE_FIELDS:
        yield from _texts(value, kind)


def _words(key: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", key.lower()) if word]


def _phrases(found: Iterator[str], name: str) -> Extracted:
    """Strip, bound and de-duplicate; the first way to write a phrase wins."""
    unique: dict[str, str] = {}
    left_out: list[str] = []
    for phrase in (" ".join(text.split()) for text in found):
        if len(phrase) > MAX_PHRASE_CHARACTERS:
            left_out.append(f"a {name} of {len(phrase)} characters is left out: it is prose")
        elif phrase:
            unique.setdefault(phrase.casefold(), phrase)
    return _bounded(list(unique.values()), left_out, name)


def _patterns(found: Iterator[str]) -> Extracted:
    unique: dict[str, None] = {}
    left_out: list[str] = []
    for pattern in found:
        fault = _fault_of(pattern)
        if fault:
            left_out.append(f"a trigger pattern is left out: {fault}")
        else:
            unique[pattern] = None
    return _bounded(list(unique), left_out, "trigger pattern")


def _fault_of(pattern: str) -> str | None:
    if not pattern.strip():
        return "it is empty"
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"it has {len(pattern)} characters"
    try:
        with warnings.catch_warnings():
            # A set such as [[a] compiles today with a warning that is not for the operator.
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"it is no regular expression ({error})"
    return None


def _bounded(entries: list[str], left_out: list[str], name: str) -> Extracted:
    if len(entries) > MAX_ENTRIES:
        left_out.append(f"only the first {MAX_ENTRIES} of {len(entries)} {name} entries are stored")
    return Extracted(tuple(entries[:MAX_ENTRIES]), tuple(left_out))
