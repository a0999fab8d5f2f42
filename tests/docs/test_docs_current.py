from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.schema import CreateIndex, CreateTable
from support.catalog_snapshot import read_catalog
from support.docs_pages import Page, all_pages
from support.shell import REPOSITORY

from agentobs.models import metadata
from agentobs.settings import DatabaseSettings, RecorderSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession
    from support.catalog_snapshot import Catalog

PAGES = all_pages()
LINK = re.compile(r"\[[^\]\n]*\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
READ_BY_TESTING = re.compile(r'"(AGENTOBS_TEST_[A-Z_]+)"')
VARIABLE = re.compile(r"\bAGENTOBS_[A-Z_]*\b")
COLUMN_ROW = re.compile(r"\| `(\w+)` \| ([^|`]+) \| (yes)? *\|")
SCHEMA = re.compile(r"\b(public|from_models)\.")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def generate(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "docs.generate", *arguments]
    return subprocess.run(command, capture_output=True, check=False, cwd=folder, text=True)


def links(page: Page) -> Iterator[tuple[str, str]]:
    return ((found[1], found[2] or "") for found in LINK.finditer(CODE.sub("", page.text)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def variables_in_the_code() -> set[str]:
    of_settings = {
        str(field.validation_alias or f"{settings.model_config['env_prefix']}{name.upper()}")
        for settings in (DatabaseSettings, RecorderSettings)
        for name, field in settings.model_fields.items()
    }
    sources = (REPOSITORY / "agentobs" / "testing").glob("*.py")
    return of_settings.union(*(READ_BY_TESTING.findall(path.read_text()) for path in sources))


def rows_of(table: str) -> str:
    """The part of docs/schema.md that is about one table."""
    page = (REPOSITORY / "docs" / "schema.md").read_text(encoding="utf-8")
    return page.split(f"\n## {table}\n")[1].split("\n## ")[0]


def declared_parts(catalog: Catalog) -> dict[str, set[tuple[Any, ...]]]:
    """What models declare, without schema names, comments and the order of columns."""
    return {
        kind: {
            tuple(SCHEMA.sub("", str(part)) for part in row[:5])
            for row in catalog[kind]
            if row[0] in metadata.tables
        }
        for kind in ("columns", "constraints", "indexes")
    }


def test_the_pages_made_from_the_code_are_current() -> None:
    result = generate("--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_page_that_is_out_of_date_is_named_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    source = REPOSITORY / "docs" / "generate.py"
    (folder / "generate.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    assert generate(folder=tmp_path).returncode == 0
    (folder / "schema.md").write_text("old", encoding="utf-8")
    result = generate("--check", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "docs/schema.md is out of date: run python -m docs.generate\n"
    assert (folder / "schema.md").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Page) -> None:
    for target, anchor in links(page):
        path = page.path.parent / target if target else page.path
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def test_the_index_of_the_documentation_names_every_page() -> None:
    folder = REPOSITORY / "docs"
    index = next(page for page in PAGES if page.path == folder / "README.md")
    linked = {(folder / target).resolve() for target, _ in links(index)}
    assert {path for path in folder.glob("*.md") if path != index.path} <= linked


def test_the_design_page_shows_the_layers_that_are_checked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    assert "\n" + " → ".join(layers) + "\n" in page


def test_every_variable_that_the_code_reads_is_on_a_page() -> None:
    pages = [REPOSITORY / "docs" / name for name in ("settings.md", "testing.md")]
    named = {name for page in pages for name in VARIABLE.findall(page.read_text(encoding="utf-8"))}
    assert variables_in_the_code() - named == set()


def test_every_variable_that_the_readme_and_the_messages_name_is_read_by_the_code() -> None:
    sources = [REPOSITORY / "README.md", *(REPOSITORY / "agentobs").rglob("*.py")]
    named = {name for path in sources for name in VARIABLE.findall(path.read_text("utf-8"))}
    assert named - {"AGENTOBS_", "AGENTOBS_RECORDER_"} <= variables_in_the_code()


@pytest.mark.parametrize(
    "table",
    ["agent_definitions", "agent_transformation_events", "router_performance_metrics"],
)
async def test_the_schema_page_says_what_the_database_says(
    table: str, agentobs_session: AsyncSession
) -> None:
    columns = await agentobs_session.execute(
        text(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = to_regclass(:table) AND attnum > 0 ORDER BY attnum"
        ),
        {"table": table},
    )
    shown = COLUMN_ROW.findall(rows_of(table).split("### Constraints")[0])
    assert [(name, type_, bool(yes)) for name, type_, yes in shown] == [
        tuple(row) for row in columns
    ]


async def test_the_models_that_the_schema_page_shows_declare_what_the_migrations_make(
    agentobs_session: AsyncSession,
) -> None:
    """See what `alembic check` does not: conditions, predicates, methods, operator classes."""
    connection = await agentobs_session.connection()
    migrated = declared_parts(await read_catalog(connection))
    await connection.execute(text("CREATE SCHEMA from_models"))
    # The defaults of keys are functions, which stay where the migrations made them.
    await connection.execute(text("SET LOCAL search_path TO from_models, public"))
    # One by one: create_all() is refused.
    for table in metadata.sorted_tables:
        await connection.execute(CreateTable(table))
        for index in table.indexes:
            await connection.execute(CreateIndex(index))
    assert declared_parts(await read_catalog(connection, "from_models")) == migrated
