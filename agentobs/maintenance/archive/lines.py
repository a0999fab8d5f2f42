"""The rows as COPY writes them, a line each: from the server to columns of texts, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentobs.maintenance.archive.extra import pa, pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NULL = "\\N"
_NO_TEXT = "\x00"
_ESCAPES = (
    ("\b", "\\b"),
    ("\f", "\\f"),
    ("\n", "\\n"),
    ("\r", "\\r"),
    ("\t", "\\t"),
    ("\v", "\\v"),
)
_TO_ESCAPE = r"[\\\x08-\x0d]"


@dataclass(frozen=True)
class BatchLimits:
    """How much is held in memory at once: a batch ends with the row that reaches either limit."""

    rows: int = 20_000
    bytes: int = 8 * 1024 * 1024


class LineBatches:
    """Collect lines from the pieces in which they arrive, until they make a batch."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> Iterator[list[bytes]]:
        """Take the next piece; yield each batch that is full with it."""
        first, *more = data.split(b"\n")
        self._pieces.append(first)
        for begun in more:
            self._end_line()
            self._pieces.append(begun)
            if self._size >= self._limits.bytes or len(self._lines) >= self._limits.rows:
                yield self._take()

    def rest(self) -> Iterator[list[bytes]]:
        """Yield the last batch, if there is one."""
        if self._lines:
            yield self._take()

    def _end_line(self) -> None:
        line = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._lines.append(line)
        self._size += len(line)

    def _take(self) -> list[bytes]:
        lines, self._lines, self._size = self._lines, [], 0
        return lines


def texts_of(lines: Sequence[bytes]) -> list[Any]:
    """Return a column of texts for each column of the lines, NULL as null."""
    cells = pc.split_pattern(pa.array(lines, pa.string()), "\t")
    width = pc.min_max(pc.list_value_length(cells)).as_py()
    if width["min"] != width["max"]:
        raise ValueError("the lines are of different columns")
    return [_values(pc.list_element(cells, place)) for place in range(width["max"])]


def lines_of(columns: Sequence[Any]) -> memoryview:
    """Return the lines of columns of texts, byte for byte as COPY writes them."""
    escaped = [_escaped(texts) for texts in columns]
    joined = pc.binary_join_element_wise(
        *escaped, "\t", null_handling="replace", null_replacement=_NULL
    )
    ended = pc.binary_join_element_wise(joined, "", "\n")
    size = pc.sum(pc.binary_length(ended)).as_py() or 0
    values = ended.buffers()[2]
    return memoryview(values if values is not None else b"")[:size]


def _values(cells: Any) -> Any:
    if not pc.any(pc.match_substring(cells, "\\")).as_py():
        return cells
    texts = pc.if_else(pc.equal(cells, _NULL), pa.scalar(None, pa.string()), cells)
    # An escaped backslash may stand before a letter. In its place stands what no text holds.
    texts = pc.replace_substring(texts, "\\\\", _NO_TEXT)
    for char, escape in _ESCAPES:
        texts = pc.replace_substring(texts, escape, char)
    return pc.replace_substring(texts, _NO_TEXT, "\\")


def _escaped(texts: Any) -> Any:
    if not pc.any(pc.match_substring_regex(texts, _TO_ESCAPE)).as_py():
        return texts
    texts = pc.replace_substring(texts, "\\", "\\\\")
    for char, escape in _ESCAPES:
        texts = pc.replace_substring(texts, char, escape)
    return texts
