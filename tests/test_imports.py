from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REVISIONS = Path(__file__).parents[1] / "alembic"

HEAVY = {"agentobs.embedded", "alembic", "asyncpg", "pytest", "rich", "typer", "yaml"}


def modules_after(statement: str) -> set[str]:
    """Return what a fresh interpreter has imported after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import agentobs", "import agentobs.errors"])
def test_the_package_alone_imports_nothing_of_others(statement: str) -> None:
    others = {"alembic", "asyncpg", "orjson", "pydantic", "pydantic_settings", "sqlalchemy"}

    assert modules_after(statement) & (HEAVY | others) == set()


def test_the_settings_import_no_sqlalchemy() -> None:
    assert modules_after("import agentobs.settings") & (HEAVY | {"sqlalchemy"}) == set()


@pytest.mark.parametrize(
    "statement", ["import agentobs.models", "from agentobs import AgentDefinition"]
)
def test_the_models_import_neither_driver_nor_migrations_nor_command_line(statement: str) -> None:
    modules = modules_after(statement)

    assert "sqlalchemy" in modules
    assert modules & (HEAVY | {"agentobs.migrations", "agentobs.sessions"}) == set()


def test_the_sessions_import_neither_migrations_nor_command_line() -> None:
    modules = modules_after("import agentobs.sessions")

    # Of the heavy ones, the driver is what sessions are about.
    assert modules & (HEAVY | {"agentobs.migrations", "agentobs.cli"}) == {"asyncpg"}


@pytest.mark.parametrize(
    "path", sorted(REVISIONS.glob("versions/*.py")), ids=lambda path: path.stem
)
def test_a_revision_imports_nothing_of_the_package(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else ["." * node.level + (node.module or "")]
        )
    }

    # Of the standard library, what finds the SQL beside a revision.
    allowed = {"__future__", "alembic", "pathlib", "sqlalchemy"}
    assert {name.split(".")[0] for name in imported} <= allowed


def test_there_are_revisions_to_look_at() -> None:
    assert {"0001", "0002", "0003"} <= {path.name[:4] for path in REVISIONS.glob("versions/*.py")}


def test_the_folder_of_the_revisions_is_no_package_that_would_shadow_alembic() -> None:
    assert (REVISIONS / "env.py").is_file()
    assert list(REVISIONS.rglob("__init__.py")) == []
