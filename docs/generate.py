"""Write the pages that are made from the code: docs/schema.md, docs/settings.md, docs/cli.md.

`python -m docs.generate` writes them; with `--check` it names each page that is out of date on
stderr, changes nothing, and exits 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql
from typer.cli import get_docs_for_click

from agentobs.cli import app
from agentobs.models import metadata
from agentobs.settings import DatabaseSettings, RecorderSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings
    from sqlalchemy import Column, Constraint, Table
    from sqlalchemy.engine import Dialect

DOCS = Path(__file__).resolve().parent

_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_COMPILER = _DIALECT.ddl_compiler(_DIALECT, None)  # type: ignore[arg-type]

# The dialect writes what CREATE TABLE takes; psql and the catalog answer with these names.
_CATALOG_NAMES = {"VARCHAR": "CHARACTER VARYING", ", ": ","}
_CONSTRAINT_ORDER = (PrimaryKeyConstraint, UniqueConstraint, CheckConstraint, ForeignKeyConstraint)
# Links that are no foreign keys.
_LINKS = frozenset({"correlation_id", "parent_event_id"})
_MADE_FROM = "<!-- Made by `python -m docs.generate` from {source}: edit that instead. -->"

_SCHEMA_INTRO = """\
# The schema

The three tables as the models declare them, and as `alembic upgrade head` makes them. What they
are asked, with examples to copy, is in [queries.md](queries.md); how to change them is in
[migrations.md](migrations.md).

How to read the tables below:

- Types and names are those that PostgreSQL shows (`\\d+ agent_definitions` in psql).
- *Default* is what the database fills in. A column with a default may be left out of an INSERT.
- Every table and column has its text as a `COMMENT` in the database, too.
- The primary key and each unique constraint have an index of the same name, not listed again.
- An index with a predicate (*where*) holds only the rows for which the predicate is true, and
  serves only queries that say the same.

The two event tables are partitioned by month, by ranges of `id`; the partitions, and what keeps
them, are in [growth.md](growth.md). What each index is for is in [indexes.md](indexes.md).

Not declared in the models, and made by revisions:

- the trigger `trigger_agent_definitions_updated_at`, which sets `agent_definitions.updated_at`
  when a column other than `last_loaded_at` and the three scores has changed;
- three triggers that keep `agent_transformation_events.parent_event_id` as a foreign key would,
  by the name `agent_transformation_events_parent_event_id_fkey`;
- three triggers on each partition of an event table that mark the hour of a row once it has closed,
  the sequence `agentobs_rollup_watermark` that they look at, and the tables of the
  [rollups](rollups.md);
- the functions of these, and of keys (`agentobs_uuid7_at`, `agentobs_uuid7_floor`);
- the tables `agentobs_partitions` and `agentobs_changed_rows`, notes of maintenance, and
  `…_original_ids`, the ids that rows had before they were ordered by time.
"""

_SETTINGS_INTRO = """\
# Settings

All are read from the environment, once, into a `DatabaseSettings`; in Python they are its fields,
in lower case and without the prefix. An empty variable counts as unset. None of them is needed but
an address: `AGENTOBS_DATABASE_URL`, or `AGENTOBS_HOST` and its companions. Durations are seconds.
How they work together is in [sessions.md](sessions.md); the variables of test runs are in
[testing.md](testing.md).
"""

_RECORDER_SETTINGS_INTRO = """\
## Of a recorder

They are a `RecorderSettings`; in Python they are arguments of `Recorder`, in lower case and without
the prefix. What they do is in [recorder.md](recorder.md).
"""

_DIAGRAM_NOTE = """\
## How they belong together

Key columns only. The solid line is a foreign key. Of the dotted ones, triggers keep that of the
parent; the shared `correlation_id` is not checked.
"""


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` compare them; return the exit code."""
    check = list(arguments) == ["--check"]
    if arguments and not check:
        raise SystemExit(f"unknown arguments {arguments}: only --check is known")
    stale = {path: page for path, page in _pages().items() if _read(path) != page}
    for path, page in stale.items():
        if check:
            sys.stderr.write(f"docs/{path.name} is out of date: run python -m docs.generate\n")
        else:
            path.write_text(page, encoding="utf-8")
            sys.stderr.write(f"docs/{path.name} is written\n")
    return 1 if check and stale else 0


def _pages() -> dict[Path, str]:
    return {
        DOCS / "schema.md": schema_page(),
        DOCS / "settings.md": settings_page(),
        DOCS / "cli.md": cli_page(),
    }


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def schema_page() -> str:
    """Return docs/schema.md."""
    tables = list(metadata.tables.values())
    sections = (_table_section(table) for table in tables)
    head = _MADE_FROM.format(source="agentobs/models")
    return "\n".join([head, "", _SCHEMA_INTRO, _DIAGRAM_NOTE, *_diagram(tables), *sections])


def settings_page() -> str:
    """Return docs/settings.md, from the fields of the settings."""
    parts = [
        _MADE_FROM.format(source="agentobs/settings.py"),
        _SETTINGS_INTRO.rstrip(),
        _settings_table(DatabaseSettings),
        _RECORDER_SETTINGS_INTRO.rstrip(),
        _settings_table(RecorderSettings),
    ]
    return "\n\n".join(parts) + "\n"


def _settings_table(settings: type[BaseSettings]) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    rows = (_setting_row(prefix, name, field) for name, field in settings.model_fields.items())
    return _markdown_table(("variable", "unset", "meaning"), rows)


def _setting_row(prefix: str, name: str, field: FieldInfo) -> tuple[str, ...]:
    variable = field.validation_alias or f"{prefix}{name.upper()}"
    return f"`{variable}`", _shown(field.default), field.description or ""


def _shown(default: Any) -> str:
    if default is None:
        return ""
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return f"{default:.10g}" if is_number else str(default).lower()


def cli_page() -> str:
    """Return docs/cli.md, by Typer's own generator; its usage lines are no commands to run."""
    command = typer.main.get_command(app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="agentobs")
    head = _MADE_FROM.format(source="agentobs/cli")
    return f"{head}\n\n{page.strip()}\n".replace("```console\n$ ", "```text\n")


def _table_section(table: Table) -> str:
    parts = [
        f"## {table.name}",
        f"{table.comment}.",
        "### Columns",
        _markdown_table(
            ("column", "type", "NOT NULL", "default", "meaning"),
            (_column_row(column) for column in table.columns),
        ),
        "### Constraints",
        _markdown_table(("constraint", "definition"), map(_constraint_row, _constraints(table))),
        "### Indexes",
        _markdown_table(
            ("index", "method", "columns", "where"),
            (_index_row(index) for index in sorted(table.indexes, key=_index_name)),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _column_row(column: Column[object]) -> tuple[str, ...]:
    default = _COMPILER.get_column_default_string(column)
    return (
        f"`{column.name}`",
        type_name(column),
        "" if column.nullable else "yes",
        f"`{default}`" if default else "",
        column.comment or "",
    )


def type_name(column: Column[object]) -> str:
    """Return the type of a column as PostgreSQL's format_type() names it."""
    name = column.type.compile(dialect=_DIALECT)
    for declared, shown in _CATALOG_NAMES.items():
        name = name.replace(declared, shown)
    return name.lower()


def _constraints(table: Table) -> list[Constraint]:
    return sorted(table.constraints, key=lambda one: (_rank(one), _constraint_name(one)))


def _rank(constraint: Constraint) -> int:
    return next(n for n, kind in enumerate(_CONSTRAINT_ORDER) if isinstance(constraint, kind))


def _constraint_name(constraint: Constraint) -> str:
    return str(_COMPILER.preparer.format_constraint(constraint))


def _constraint_row(constraint: Constraint) -> tuple[str, str]:
    declared = str(_COMPILER.process(constraint))
    definition = declared.removeprefix(f"CONSTRAINT {_constraint_name(constraint)} ")
    return f"`{_constraint_name(constraint)}`", f"`{definition}`"


def _index_name(index: Index) -> str:
    return str(_COMPILER.preparer.format_index(index))


def _index_row(index: Index) -> tuple[str, ...]:
    options = index.dialect_options["postgresql"]
    columns = ", ".join(getattr(part, "name", None) or str(part) for part in index.expressions)
    where = options["where"]
    return (
        f"`{_index_name(index)}`",
        options["using"] or "btree",
        f"`{columns}`",
        "" if where is None else f"`{where}`",
    )


def _diagram(tables: Iterable[Table]) -> Iterator[str]:
    yield "```mermaid\nerDiagram"
    for table in tables:
        yield f"    {table.name} {{"
        for column in filter(_is_key, table.columns):
            kind = type_name(column).replace("character varying", "varchar")
            yield f"        {kind} {column.name} {_key_kinds(column)}".rstrip()
        yield "    }"
    yield from _relations()
    yield "```\n"


def _is_key(column: Column[object]) -> bool:
    return column.name in _LINKS or bool(_key_kinds(column))


def _key_kinds(column: Column[object]) -> str:
    unique = (one for one in column.table.constraints if isinstance(one, UniqueConstraint))
    kinds = {
        "PK": column.primary_key,
        "FK": bool(column.foreign_keys),
        "UK": any(column in one.columns.values() for one in unique),
    }
    return ", ".join(kind for kind, holds in kinds.items() if holds)


def _relations() -> Iterator[str]:
    for table in metadata.tables.values():
        for key in sorted(table.foreign_keys, key=lambda one: one.parent.name):
            yield f"    {key.column.table.name} |o--o{{ {table.name} : {key.parent.name}"
    yield "    agent_transformation_events |o..o{ agent_transformation_events : parent_event_id"
    yield "    agent_transformation_events }o..o{ router_performance_metrics : correlation_id"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
