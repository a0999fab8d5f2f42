"""The order of the versions of an agent: that of Semantic Versioning 2.0.0."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMANTIC = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)


class VersionOrder(NamedTuple):
    """What versions are compared by; the greater is the newer.

    `text` orders what is no semantic version, and what differs in build metadata only, which has
    no precedence by itself.
    """

    is_semantic: bool
    numbers: tuple[tuple[int, str], ...]
    is_release: bool
    identifiers: tuple[tuple[bool, int, str], ...]
    text: str


def version_order(version: str) -> VersionOrder:
    """Return the sort key of a version: precedence by semver.org 2.0.0, section 11.

    A pre-release is older than its release. A text that is no semantic version, such as 1.0, is
    older than any that is one; such texts are in the order of their characters.
    """
    found = _SEMANTIC.fullmatch(version)
    if found is None:
        return VersionOrder(False, (), False, (), version)
    *numbers, before_release = found.groups()
    identifiers = before_release.split(".") if before_release else ()
    return VersionOrder(
        is_semantic=True,
        numbers=tuple(map(_number, numbers)),
        is_release=not identifiers,
        identifiers=tuple(map(_identifier, identifiers)),
        text=version,
    )


def _number(digits: str) -> tuple[int, str]:
    """Order numbers of any length, without leading zeros, as numbers: int() has a limit."""
    return len(digits), digits


def _identifier(text: str) -> tuple[bool, int, str]:
    """Order numbers before words; words by their characters."""
    return (False, *_number(text)) if text.isdigit() else (True, 0, text)
