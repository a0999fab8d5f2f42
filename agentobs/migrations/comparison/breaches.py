"""Queries that show the rows which do not allow what is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentobs.migrations.connection import named

if TYPE_CHECKING:
    from agentobs.migrations.comparison.catalog import Constraint

# Our own keys have one column each.
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \((?P<own>\w+)\) REFERENCES (?P<table>\w+)\((?P<key>\w+)\)")


def breach_of(table: str, constraint: Constraint) -> str | None:
    """Find the rows that break a constraint, which is given in the server's words."""
    definition = constraint.definition
    if constraint.kind == "c":
        # What is NULL breaks no CHECK.
        condition = definition.removeprefix("CHECK ")
        return f"SELECT * FROM {named(table)} WHERE NOT {condition}"  # noqa: S608 (names of ours)
    if found := _FOREIGN_KEY.match(definition):
        return (
            f"SELECT * FROM {named(table)} AS child "  # noqa: S608 (names of ours)
            f"WHERE {found['own']} IS NOT NULL AND NOT EXISTS "
            f"(SELECT FROM {named(found['table'])} AS parent "
            f"WHERE parent.{found['key']} = child.{found['own']})"
        )
    if constraint.kind in {"p", "u"}:
        columns = definition.partition("(")[2].rstrip(")")
        return (
            f"SELECT {columns}, count(*) FROM {named(table)} "  # noqa: S608 (names of ours)
            f"WHERE ({columns}) IS NOT NULL "
            f"GROUP BY {columns} HAVING count(*) > 1"
        )
    return None


def null_of(table: str, column: str) -> str:
    """Find the rows where a column is NULL."""
    return f"SELECT * FROM {named(table)} WHERE {named(column)} IS NULL"  # noqa: S608 (names of ours)
