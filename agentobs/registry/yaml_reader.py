"""YAML text to plain values, by the core schema of YAML 1.2.

YAML 1.1, which PyYAML speaks by itself, turns `on` into True, `1:30` into 90 and a date into an
object; a trigger phrase or a version must survive as it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentobs.errors import MissingExtraError
from agentobs.jsonb import require_storable_text

try:
    from yaml.composer import Composer
    from yaml.constructor import ConstructorError
    from yaml.error import MarkedYAMLError, YAMLError
    from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
    from yaml.parser import Parser
    from yaml.reader import Reader, ReaderError
    from yaml.resolver import BaseResolver
    from yaml.scanner import Scanner
except ImportError as error:
    raise MissingExtraError("cli", "Reading agent definitions") from error

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 100
"""How deep lists and mappings may nest; jsonb and the encoder stop a little later."""

MAX_EXPANDED_CHARACTERS = 4 * 2**20
"""How large a document may grow when each alias is replaced by what it stands for."""

_MAX_DIGITS = 1000
_SHOWN_KEY_CHARACTERS = 60

_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE, _SEQ, _MAP = (
    _PREFIX + name for name in ("null", "bool", "int", "float", "str", "merge", "seq", "map")
)
_SURROGATE = re.compile("[\ud800-\udfff]")

Scalar = Callable[[ScalarNode], Any]


class YamlProblemError(Exception):
    """The text is no YAML that can be stored; `line` counts from 1 where it is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class YamlDocument:
    """One parsed document; `warnings` name the lines of doubtful places."""

    root: Node = field(repr=False)
    values: Any = field(repr=False)
    """The document as JSON values."""
    written: Any = field(repr=False)
    """The same tree with each number as it was written: `1.10` stays "1.10"."""
    warnings: tuple[str, ...] = ()

    def line_of(self, path: str) -> int | None:
        """Return the line where the value at the dotted `path` stands, counting from 1."""
        node: Node | None = self.root
        for name in path.split("."):
            node = _value_at(node, name)
        return None if node is None else _line(node)


def parse_yaml(text: str) -> YamlDocument:
    """Parse `text`, which must hold exactly one document.

    Raises YamlProblemError for bad syntax, several documents, tags of other languages, anchors
    that contain themselves, too much nesting or expansion, and values that jsonb can't hold.
    """
    try:
        return _parse(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblemError("holds a control character", line) from error
    except MarkedYAMLError as error:
        raise _problem(error) from error
    except (YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets chr() and int() speak for themselves on escapes and directives.
        raise YamlProblemError("is not valid YAML: a number or escape is out of range") from error


def _parse(text: str) -> YamlDocument:
    loader = _NodeLoader(text)
    root = loader.get_single_node()
    if root is None:
        raise YamlProblemError("is empty: it holds no document")
    _measure(root, {})
    warnings = tuple(f"line {line}: {text}" for line, text in sorted(loader.repeated_keys))
    return YamlDocument(root, _build(root, _json_scalar), _build(root, _written_scalar), warnings)


def _problem(error: MarkedYAMLError) -> YamlProblemError:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    if isinstance(error, ConstructorError):
        return YamlProblemError(str(error.problem), line)
    if error.context == "expected a single document in the stream":
        return YamlProblemError("holds several documents: one file defines one agent", line)
    context = f" ({error.context})" if error.context else ""
    return YamlProblemError(f"is not valid YAML: {error.problem}{context}", line)


class _CoreResolver(BaseResolver):
    """What a plain scalar is: text, unless the core schema says otherwise."""


for _tag, _pattern, _first in (
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    (_INT, r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", "-+0123456789"),
    (
        _FLOAT,
        (
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        "-+.0123456789",
    ),
    (_NULL, r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    (_MERGE, r"<<\Z", "<"),
):
    _CoreResolver.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


class _NodeLoader(Reader, Scanner, Parser, Composer, _CoreResolver):
    """Text to nodes, never deeper than the bound; notes each key that stands twice."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreResolver.__init__(self)
        self.repeated_keys: list[tuple[int, str]] = []
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConstructorError(None, None, _TOO_DEEP, self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        self.repeated_keys.extend(_repeated_keys(node))
        return node


_TOO_DEEP = f"nests deeper than {MAX_DEPTH} levels"


def _repeated_keys(node: MappingNode) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode) or key.tag == _MERGE:
            continue
        if key.value in seen:
            shown = key.value[:_SHOWN_KEY_CHARACTERS]
            yield _line(key), f"key {shown!r} stands twice; the last one counts"
        seen.add(key.value)


def _measure(node: Node, sizes: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return characters and depth of `node` with its aliases expanded, within the bounds."""
    if id(node) in sizes:
        return _known_size(node, sizes[id(node)])
    sizes[id(node)] = None
    inner = [_measure(child, sizes) for child in _children(node)]
    own = len(node.value) if isinstance(node, ScalarNode) else 0
    size = own + 1 + sum(characters for characters, _ in inner)
    depth = 1 + max((depth for _, depth in inner), default=0)
    if size > MAX_EXPANDED_CHARACTERS:
        raise _refusal(node, f"expands to more than {MAX_EXPANDED_CHARACTERS} characters")
    if depth > MAX_DEPTH:
        raise _refusal(node, _TOO_DEEP)
    sizes[id(node)] = size, depth
    return size, depth


def _known_size(node: Node, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise _refusal(node, "holds an anchor that contains itself")
    return size


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _build(node: Node, scalar: Scalar) -> Any:
    if isinstance(node, ScalarNode):
        return scalar(node)
    if isinstance(node, SequenceNode) and node.tag == _SEQ:
        return [_build(item, scalar) for item in node.value]
    if isinstance(node, MappingNode) and node.tag == _MAP:
        return _build_mapping(node, scalar)
    raise _unknown_tag(node)


def _build_mapping(node: MappingNode, scalar: Scalar) -> dict[str, Any]:
    """Build the mapping; what `<<` merges in stands first and loses to the mapping's own keys."""
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            merged = _merge_sources(value, scalar) | merged
        else:
            own[_key_text(key)] = _build(value, scalar)
    return merged | own


def _merge_sources(node: Node, scalar: Scalar) -> dict[str, Any]:
    sources = node.value if isinstance(node, SequenceNode) else [node]
    merged: dict[str, Any] = {}
    for source in sources:
        if not isinstance(source, MappingNode):
            raise _refusal(node, "merges (<<) something that is no mapping")
        merged = _build_mapping(source, scalar) | merged
    return merged


def _key_text(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise _refusal(node, "has a list or mapping as a key")
    return _storable(node)


def _json_scalar(node: ScalarNode) -> Any:
    convert = _CONVERSIONS.get(node.tag)
    if convert is None:
        raise _unknown_tag(node)
    text = _storable(node)
    try:
        return convert(text)
    except ValueError as error:
        raise _refusal(node, str(error)) from None


def _written_scalar(node: ScalarNode) -> Any:
    value = _json_scalar(node)
    return value if value is None or isinstance(value, bool) else _storable(node)


def _storable(node: ScalarNode) -> str:
    """Return the scalar's text; JSON writes characters beyond U+FFFF as two escapes."""
    text: str = node.value
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    try:
        require_storable_text(text)
    except ValueError as error:
        raise _refusal(node, str(error)) from None
    return text


def _null(text: str) -> None:
    del text


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("tags something as !!bool that is neither true nor false")
    return text.lower() == "true"


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"holds a number of more than {_MAX_DIGITS} digits: quote it")
    try:
        return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
    except ValueError:
        raise ValueError("tags something as !!int that is no integer") from None


def _float(text: str) -> float:
    try:
        value = float(re.sub(r"\.(inf|nan)\Z", r"\1", text.lower()))
    except ValueError:
        raise ValueError("tags something as !!float that is no number") from None
    if not math.isfinite(value):
        raise ValueError("holds NaN, an infinity or a number too large for JSON: quote it")
    return value


_CONVERSIONS: dict[str, Callable[[str], Any]] = {
    _NULL: _null,
    _BOOL: _boolean,
    _INT: _integer,
    _FLOAT: _float,
    _STR: str,
    _MERGE: str,
}


def _value_at(node: Node | None, name: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    found = [value for key, value in node.value if key.value == name]
    return found[-1] if found else None


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _refusal(node: Node, reason: str) -> ConstructorError:
    return ConstructorError(None, None, reason, node.start_mark)


def _unknown_tag(node: Node) -> ConstructorError:
    tag = node.tag.replace(_PREFIX, "!!")[:_SHOWN_KEY_CHARACTERS]
    return _refusal(node, f"uses the tag {tag!r}: only plain YAML values are read")
