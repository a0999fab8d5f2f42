"""The SQL that makes a part of a table what it should be: names quoted, texts the server's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.migrations.connection import named

if TYPE_CHECKING:
    from agentobs.migrations.comparison.catalog import Column, Constraint, Function, Index, Table

# Whose owner has the functions, as revision 0005 gives them away.
_OWNED = "agent_transformation_events"


def literal(value: str) -> str:
    """Write a text as a literal that means the same whatever standard_conforming_strings says."""
    escaped = value.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in value else f"'{escaped}'"


def create_table(name: str, table: Table) -> str:
    """Create the table with its columns alone; the rest is added to it as to any other."""
    columns = ", ".join(_declared(column, facts) for column, facts in table.columns.items())
    return f"CREATE TABLE {named(name)} ({columns})"


def add_column(table: str, name: str, column: Column) -> tuple[str, ...]:
    """Add a column; one that each row must have a value in is filled in before it says so."""
    add = f"ALTER TABLE {named(table)} ADD COLUMN"
    if column.default is None and column.not_null:
        empty = column.model_copy(update={"not_null": False})
        return f"{add} {_declared(name, empty)}", alter_column(table, name, "SET NOT NULL")
    return (f"{add} {_declared(name, column)}",)


def alter_column(table: str, name: str, change: str) -> str:
    """Change one thing of a column."""
    return f"ALTER TABLE {named(table)} ALTER COLUMN {named(name)} {change}"


def set_type(table: str, name: str, type_: str) -> str:
    """Change the type of a column: the table is rewritten under a lock.

    A text that is too long fails it: as a value to be stored, it is not cut off as by a cast.
    """
    cast = "text" if type_.startswith("character varying") else type_
    return alter_column(table, name, f"TYPE {type_} USING {named(name)}::{cast}")


def comment_on(kind: str, subject: str, comment: str) -> str:
    """Comment on an object, whose name is given as SQL writes it."""
    return f"COMMENT ON {kind} {subject} IS {literal(comment)}"


def add_constraint(
    table: str, name: str, constraint: Constraint, *, partitioned: bool
) -> tuple[str, ...]:
    """Add a constraint; rows that are there are looked at under a lock that stops nobody.

    But for keys, and foreign keys of a partitioned table: before PostgreSQL 18 the server adds
    these with a look at the rows alone.
    """
    add = f"ALTER TABLE {named(table)} ADD CONSTRAINT {named(name)} {constraint.definition}"
    if constraint.kind not in {"c", "f"} or (constraint.kind == "f" and partitioned):
        return (add,)
    return f"{add} NOT VALID", validate(table, name)


def validate(table: str, name: str) -> str:
    """Look whether the rows satisfy a constraint that was not valid."""
    return f"ALTER TABLE {named(table)} VALIDATE CONSTRAINT {named(name)}"


def drop_constraint(table: str, name: str) -> str:
    """Drop a constraint."""
    return f"ALTER TABLE {named(table)} DROP CONSTRAINT {named(name)}"


def rename_constraint(table: str, old: str, new: str) -> str:
    """Rename a constraint."""
    return f"ALTER TABLE {named(table)} RENAME CONSTRAINT {named(old)} TO {named(new)}"


def create_index(table: str, name: str, index: Index, *, concurrently: bool) -> str:
    """Create an index beside the writers of a table, or one of a partitioned table alone.

    The server makes none of a partitioned table beside its writers. What is made instead is not
    valid, until each partition has an index that is attached to it.
    """
    unique, how = ("UNIQUE " if index.is_unique else ""), ("CONCURRENTLY " if concurrently else "")
    only = "" if concurrently else "ONLY "
    return f"CREATE {unique}INDEX {how}{named(name)} ON {only}{named(table)} USING {index.using}"


def drop_index(name: str, *, concurrently: bool) -> str:
    """Drop an index."""
    return f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}{named(name)}"


def rename_index(old: str, new: str) -> str:
    """Rename an index."""
    return f"ALTER INDEX {named(old)} RENAME TO {named(new)}"


def drop_trigger(table: str, name: str) -> str:
    """Drop a trigger."""
    return f"DROP TRIGGER {named(name)} ON {named(table)}"


def enable_trigger(table: str, name: str, enabled: str) -> str:
    """Give a trigger the mode that it should have."""
    mode = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}[enabled]
    return f"ALTER TABLE {named(table)} {mode} TRIGGER {named(name)}"


def create_function(signature: str, function: Function) -> tuple[str, ...]:
    """Create or replace a function; one that has its owner's rights is the tables' owner's alone.

    A superuser who runs this would own it, and it would run as a superuser.
    """
    create = (
        f"DO $do$ BEGIN EXECUTE replace($definition$\n{function.definition}$definition$, "
        "'{schema}', quote_ident(current_schema())); END $do$"
    )
    if not function.is_security_definer:
        return (create,)
    give = (
        f"DO $do$ BEGIN EXECUTE (SELECT format('ALTER FUNCTION {signature} OWNER TO %s', "  # noqa: S608
        f"relowner::regrole) FROM pg_class WHERE oid = '{_OWNED}'::regclass); END $do$"
    )
    return create, give, f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC"


def _declared(name: str, column: Column) -> str:
    default = "" if column.default is None else f" DEFAULT {column.default}"
    return f"{named(name)} {column.type}{default}{' NOT NULL' if column.not_null else ''}"
