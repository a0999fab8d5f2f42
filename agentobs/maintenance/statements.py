"""Statements whose tables and columns are known at run time only, and whose values are bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import TextClause


def statement_with(template: str, **names: str) -> TextClause:
    """Return a statement with names, which are quoted already, in the places of the template.

    What the template itself has behind a colon is a parameter. A colon in a name is none.
    """
    escaped = {place: name.replace(":", r"\:") for place, name in names.items()}
    return text(template.format(**escaped))
