"""Texts from the database, made fit to be shown."""

from __future__ import annotations

EMPTY = "(empty)"

_LONGEST_LABEL = 32
_PLOTLY = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def visible(text: str) -> str:
    """Return a text whose control characters, marks of direction among them, show as one sign."""
    return "".join(char if char.isprintable() else "�" for char in text)


def hover(name: str) -> str:
    """Return a name for plotly, which takes labels and hovers for a subset of HTML."""
    return (visible(name) or EMPTY).translate(_PLOTLY)


def label(name: str) -> str:
    """Return the same, without its middle where there is no room for it beside a chart."""
    shown = visible(name)
    half = _LONGEST_LABEL // 2
    cut = shown if len(shown) <= _LONGEST_LABEL else f"{shown[:half]}…{shown[1 - half :]}"
    return hover(cut)
