"""Compare the parts of one table: columns, constraints, indexes, triggers, comments."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agentobs.migrations.comparison import statements as sql
from agentobs.migrations.comparison.breaches import breach_of, null_of
from agentobs.migrations.connection import named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs.migrations.comparison.catalog import Column, Constraint, Index, Table, Trigger
    from agentobs.migrations.comparison.differences import Kind, Notes

_Part = TypeVar("_Part")


def compare_parts(notes: Notes, table: str, expected: Table, found: Table) -> None:
    """Note what differs between the two tables, and what only the second one has."""
    _compare_columns(notes, table, expected.columns, found.columns)
    _compare_constraints(notes, table, expected, found)
    _compare_indexes(notes, table, expected, found)
    _compare_triggers(notes, table, expected.triggers, found.triggers)
    _compare_comments(notes, table, expected, found)


def _compare_columns(
    notes: Notes, table: str, expected: Mapping[str, Column], found: Mapping[str, Column]
) -> None:
    for name, column in expected.items():
        if name not in found:
            # A default that is computed would say of rows that are there what is not true of them.
            is_constant = column.default is not None and "(" not in column.default
            is_safe = is_constant or (column.default is None and not column.not_null)
            add = sql.add_column(table, name, column)
            words = (
                "is missing" if len(add) == 1 else "is missing: fill it in before it is NOT NULL"
            )
            notes.differs("column", f"{table}.{name}", words, *add, is_safe=is_safe)
        else:
            _compare_column(notes, table, name, column, found[name])
    for name in found.keys() - expected.keys():
        notes.added("column", f"{table}.{name}")


def _compare_column(notes: Notes, table: str, name: str, expected: Column, found: Column) -> None:
    subject = f"{table}.{name}"
    if found.type != expected.type:
        words = f"is {found.type}, and should be {expected.type}"
        statement = sql.set_type(table, name, expected.type)
        notes.differs("column", subject, words, statement, is_safe=False)
        # Its default is of that type, too.
        return
    if found.default != expected.default:
        change = f"SET DEFAULT {expected.default}" if expected.default else "DROP DEFAULT"
        words = f"has the default {found.default}, and should have {expected.default or 'none'}"
        notes.differs(
            "column",
            subject,
            words if found.default else f"lacks its default {expected.default}",
            sql.alter_column(table, name, change),
        )
    if found.not_null != expected.not_null:
        change = "SET NOT NULL" if expected.not_null else "DROP NOT NULL"
        words = "takes NULL, and should not" if expected.not_null else "is NOT NULL, and should not"
        breach = null_of(table, name) if expected.not_null else None
        notes.differs(
            "column", subject, words, sql.alter_column(table, name, change), breach=breach
        )


def _compare_constraints(notes: Notes, table: str, expected: Table, found: Table) -> None:
    there, partitioned = found.constraints, found.kind == "p"
    others = {name: each for name, each in there.items() if name not in expected.constraints}
    for name, constraint in expected.constraints.items():
        add = sql.add_constraint(table, name, constraint, partitioned=partitioned)
        if name in there:
            _compare_constraint(notes, table, name, constraint, there[name], add=add)
        elif (other := _name_of_equal(constraint, others)) is not None:
            del others[other]
            rename = sql.rename_constraint(table, other, name)
            notes.differs(_kind_of(constraint), f"{table}.{name}", f"is named {other}", rename)
        else:
            kind, breach = _kind_of(constraint), breach_of(table, constraint)
            notes.differs(kind, f"{table}.{name}", "is missing", *add, breach=breach)
    for name in others:
        notes.added(_kind_of(there[name]), f"{table}.{name}")


def _compare_constraint(
    notes: Notes,
    table: str,
    name: str,
    expected: Constraint,
    found: Constraint,
    *,
    add: tuple[str, ...],
) -> None:
    subject = f"{table}.{name}"
    if found.definition != expected.definition:
        statements = sql.drop_constraint(table, name), *add
        words = f"is {found.definition}, and should be {expected.definition}"
        # A key may have others that refer to it.
        is_safe, breach = expected.kind in {"c", "f"}, breach_of(table, expected)
        notes.differs(
            _kind_of(expected), subject, words, *statements, is_safe=is_safe, breach=breach
        )
    elif found.is_valid != expected.is_valid:
        validate, breach = sql.validate(table, name), breach_of(table, expected)
        notes.differs(_kind_of(expected), subject, "is not valid", validate, breach=breach)


def _kind_of(constraint: Constraint) -> Kind:
    return "foreign key" if constraint.kind == "f" else "constraint"


def _compare_indexes(notes: Notes, table: str, expected: Table, found: Table) -> None:
    others = {name: each for name, each in found.indexes.items() if name not in expected.indexes}
    for name, index in expected.indexes.items():
        subject = f"{name} of {table}"
        create = sql.create_index(table, name, index, concurrently=found.kind == "r")
        if name in found.indexes:
            fault, statements = _fault_of(name, index, found, create)
            if fault is not None:
                notes.differs("index", subject, fault, *statements)
        elif (other := _name_of_equal(index, others)) is not None:
            del others[other]
            notes.differs("index", subject, f"is named {other}", sql.rename_index(other, name))
        else:
            notes.differs("index", subject, "is missing", create)
    for name in others:
        notes.added("index", f"{name} of {table}")


def _fault_of(
    name: str, expected: Index, table: Table, create: str
) -> tuple[str | None, tuple[str, ...]]:
    found, concurrently = table.indexes[name], table.kind == "r"
    again = (sql.drop_index(name, concurrently=concurrently), create)
    if (found.using, found.is_unique) != (expected.using, expected.is_unique):
        return f"is {_index_words(found)}, and should be {_index_words(expected)}", again
    if found.is_valid:
        return None, ()
    if concurrently:
        return "is not valid: its making was broken off", again
    # Which partition lacks what, only they tell.
    return "is not valid: partitions lack theirs", ()


def _index_words(index: Index) -> str:
    return f"{'unique ' if index.is_unique else ''}{index.using}"


def _compare_triggers(
    notes: Notes, table: str, expected: Mapping[str, Trigger], found: Mapping[str, Trigger]
) -> None:
    for name, trigger in expected.items():
        subject = f"{table}.{name}"
        if name not in found:
            notes.differs("trigger", subject, "is missing", *_make_trigger(table, name, trigger))
        elif found[name].definition != trigger.definition:
            drop = sql.drop_trigger(table, name)
            statements = drop, *_make_trigger(table, name, trigger)
            notes.differs("trigger", subject, "is another one", *statements)
        elif found[name].enabled != trigger.enabled:
            enable = sql.enable_trigger(table, name, trigger.enabled)
            notes.differs("trigger", subject, "is not enabled as it should be", enable)
    for name in found.keys() - expected.keys():
        notes.added("trigger", f"{table}.{name}")


def _make_trigger(table: str, name: str, trigger: Trigger) -> tuple[str, ...]:
    if trigger.enabled == "O":
        return (trigger.definition,)
    return trigger.definition, sql.enable_trigger(table, name, trigger.enabled)


def _compare_comments(notes: Notes, table: str, expected: Table, found: Table) -> None:
    """Note comments that are missing; others are the host's words."""
    if expected.comment and not found.comment:
        comment = sql.comment_on("TABLE", named(table), expected.comment)
        notes.differs("comment", f"of table {table}", "is missing", comment)
    for name, column in expected.columns.items():
        if column.comment and not (name in found.columns and found.columns[name].comment):
            subject = f"{named(table)}.{named(name)}"
            comment = sql.comment_on("COLUMN", subject, column.comment)
            notes.differs("comment", f"of column {table}.{name}", "is missing", comment)


def _name_of_equal(wanted: _Part, others: Mapping[str, _Part]) -> str | None:
    """Find what is the same but for its name."""
    return next((name for name, each in others.items() if each == wanted), None)
