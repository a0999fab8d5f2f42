"""Compare a catalog with another one, table by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.migrations.comparison import statements as sql
from agentobs.migrations.comparison.differences import Comparison, Notes
from agentobs.migrations.comparison.parts import compare_parts

if TYPE_CHECKING:
    from agentobs.migrations.comparison.catalog import Catalog, Function, Table
    from agentobs.migrations.comparison.differences import Kind

_KINDS = {
    "r": "a table",
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
}
# A trigger needs its function, a foreign key the key that it names.
_ORDER: dict[Kind, int] = {
    "function": 0,
    "table": 1,
    "column": 2,
    "constraint": 3,
    "foreign key": 4,
    "index": 5,
    "trigger": 6,
    "comment": 7,
}


def compare(expected: Catalog, found: Catalog) -> Comparison:
    """Compare what is expected with what is there; tables that nobody expects are not looked at.

    The differences come in the order in which their statements must run.
    """
    notes = Notes()
    for signature, function in expected.functions.items():
        _compare_function(notes, signature, function, found.functions.get(signature))
    for name, table in expected.tables.items():
        _compare_table(notes, name, table, found.tables.get(name))
    ordered = sorted(notes.differences, key=lambda each: _ORDER[each.kind])
    return Comparison(tuple(ordered), tuple(notes.additions))


def _compare_function(
    notes: Notes, signature: str, expected: Function, found: Function | None
) -> None:
    if found and found.model_copy(update={"definition": expected.definition}) == expected:
        return
    # CREATE OR REPLACE can't give it another result.
    is_safe = found is None or found.result == expected.result
    notes.differs(
        "function",
        signature,
        "is missing" if found is None else "is another one",
        *(sql.create_function(signature, expected) if is_safe else ()),
        is_safe=is_safe,
    )


def _compare_table(notes: Notes, name: str, expected: Table, found: Table | None) -> None:
    if found is None:
        _note_missing_table(notes, name, expected)
    elif found.kind != expected.kind:
        words = f"is {_KINDS[found.kind]}, and should be {_KINDS[expected.kind]}"
        notes.differs("table", name, words, is_safe=False)
    else:
        compare_parts(notes, name, expected, found)


def _note_missing_table(notes: Notes, name: str, expected: Table) -> None:
    if expected.kind != "r":
        # A partitioned table needs its partitions, and so on: its revision makes it.
        notes.differs("table", name, f"is missing ({_KINDS[expected.kind]})", is_safe=False)
        return
    notes.differs("table", name, "is missing", sql.create_table(name, expected))
    columns = {
        column: facts.model_copy(update={"comment": None})
        for column, facts in expected.columns.items()
    }
    bare = {"columns": columns, "constraints": {}, "indexes": {}, "triggers": {}, "comment": None}
    compare_parts(notes, name, expected, expected.model_copy(update=bare))
