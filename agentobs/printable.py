"""Text of anybody's that reaches a terminal: without what a terminal takes for an order."""

from __future__ import annotations


def printable(value: object) -> str:
    """Return the text with a mark in the place of each control code; lines stay lines."""
    text = str(value).encode(errors="replace").decode()
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
