"""PostgreSQL's text of an array, and the list that it stands for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
QUOTED = r'[{}",\\ \t\n\r\v\f]|^$|^[nN][uU][lL][lL]$'
"""What the server quotes: its own white space is less than Python's."""

_QUOTED = re.compile(QUOTED)
_TO_ESCAPE = re.compile(r'(["\\])')


def parse_array(literal: str) -> list[str | None]:
    """Read the text of an array of one dimension.

    Of any other text comes a list that `array_text` does not turn back into it.
    """
    inner = literal[1:-1]
    if not inner:
        return []
    if '"' not in inner:
        return [None if element == "NULL" else element for element in inner.split(",")]
    return [_element(*match.groups()) for match in _ELEMENT.finditer(inner)]


def array_text(elements: Sequence[str | None]) -> str:
    """Write a list as the server does."""
    return "{" + ",".join(map(_text, elements)) + "}"


def _element(quoted: str | None, plain: str | None) -> str | None:
    if quoted is not None:
        return _ESCAPED.sub(r"\1", quoted)
    return None if plain == "NULL" else plain


def _text(element: str | None) -> str:
    if element is None:
        return "NULL"
    if _QUOTED.search(element):
        return '"' + _TO_ESCAPE.sub(r"\\\1", element) + '"'
    return element
