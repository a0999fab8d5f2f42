"""A new column, from the model to the database, as docs/migrations.md walks through it."""

from __future__ import annotations

import ast
import shutil
from typing import TYPE_CHECKING

import pytest
from support.shell import NEXT, REPOSITORY, alembic

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from agentobs import DatabaseSettings

ANCHOR = "    definition_hash: Mapped[Digest | None] = mapped_column(\n"
NEW_COLUMNS = """\
    owner: Mapped[Name | None] = mapped_column(comment="Who answers for the agent")
    reviewed_at: Mapped[Instant | None] = mapped_column(comment="When it was last reviewed")
    limits: Mapped[Json | None] = mapped_column(comment="What it may use")
    teams: Mapped[TextArray | None] = mapped_column(comment="Who uses it")
"""


@pytest.fixture
def copy_of_repository(tmp_path: Path) -> Path:
    """Return a copy in which the models may change; its package wins over the installed one."""
    for name in ("agentobs", "alembic"):
        shutil.copytree(
            REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "alembic.ini", tmp_path)
    return tmp_path


def _add_columns(copy: Path) -> None:
    model = copy / "agentobs/models/agent_definition.py"
    source = model.read_text()
    assert ANCHOR in source
    model.write_text(source.replace(ANCHOR, NEW_COLUMNS + ANCHOR))


def _alembic(
    copy: Path, *arguments: str, settings: DatabaseSettings
) -> subprocess.CompletedProcess[str]:
    return alembic(*arguments, settings=settings, cwd=copy, PYTHONPATH=str(copy))


async def test_autogenerate_turns_new_columns_into_the_next_revision(
    at_head: DatabaseSettings, copy_of_repository: Path
) -> None:
    _add_columns(copy_of_repository)

    def run_there(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _alembic(copy_of_repository, *arguments, settings=at_head)

    made = run_there("revision", "--autogenerate", "-m", "add owner")
    assert made.returncode == 0, made.stderr
    (revision,) = copy_of_repository.glob(f"alembic/versions/{NEXT}_add_owner.py")
    text = revision.read_text()
    assert "lock_timeout" in text
    assert "agentobs" not in {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    for step in (("upgrade", "head"), ("check",), ("downgrade", "base"), ("upgrade", "head")):
        run = run_there(*step)
        assert run.returncode == 0, run.stderr


async def test_numbers_go_on_after_a_revision_that_has_none(
    at_head: DatabaseSettings, copy_of_repository: Path
) -> None:
    by_hand = _alembic(copy_of_repository, "revision", "-m", "by hand", settings=at_head)
    assert by_hand.returncode == 0, by_hand.stderr
    _alembic(copy_of_repository, "upgrade", "head", settings=at_head)
    _add_columns(copy_of_repository)

    run = _alembic(copy_of_repository, "revision", "--autogenerate", "-m", "next", settings=at_head)

    assert run.returncode == 0, run.stderr
    assert len(list(copy_of_repository.glob(f"alembic/versions/{NEXT}_next.py"))) == 1


async def test_autogenerate_makes_no_revision_where_nothing_changed(
    at_head: DatabaseSettings, copy_of_repository: Path
) -> None:
    before = sorted(copy_of_repository.glob("alembic/versions/*.py"))
    run = _alembic(
        copy_of_repository, "revision", "--autogenerate", "-m", "nothing", settings=at_head
    )

    assert run.returncode == 0, run.stderr
    assert sorted(copy_of_repository.glob("alembic/versions/*.py")) == before
