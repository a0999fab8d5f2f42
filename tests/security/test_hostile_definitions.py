"""Definition files and their folders may say and be called anything: rows hold just that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio
import yaml
from sqlalchemy import select
from support.hostile import A_FEW, CLASSICS, UNSTORABLE, nothing_else_changes
from support.registry import write
from support.rollups import opened

from agentobs import AgentDefinition
from agentobs.registry import sync_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs import DatabaseSettings

PRINTABLE = [name for name in CLASSICS if name.isprintable() and name == " ".join(name.split())]
FILE_NAMES = [name for name in CLASSICS if "/" not in name]


@pytest_asyncio.fixture
async def session(guarded: DatabaseSettings) -> AsyncIterator[AsyncSession]:
    """Yield a session whose work is undone, and that did nothing else."""
    async with nothing_else_changes(guarded), opened(guarded) as found:
        yield found
        await found.rollback()


def define(folder: Path, number: int, text: str) -> None:
    """Write a file that says the text wherever it can be said."""
    document = {
        "name": text,
        "version": text,
        "agent_type": text,
        "domain": text,
        "capabilities": [text],
        "triggers": [text],
        "trigger_patterns": [text],
        "title": text,
        "other": {text: [text]},
    }
    (folder / f"{number}.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))


async def rows(session: AsyncSession, *columns: Any) -> list[Any]:
    return list(await session.execute(select(*columns).order_by(columns[0])))


async def test_what_a_file_says_is_stored_as_it_is(session: AsyncSession, tmp_path: Path) -> None:
    for number, text in enumerate(PRINTABLE):
        define(tmp_path, number, text)

    report = await sync_folder(session, tmp_path)

    assert report.ok
    found = {row.agent_name: row for row in await session.scalars(select(AgentDefinition))}
    assert sorted(found) == sorted(PRINTABLE)
    for text, row in found.items():
        told = (row.agent_version, row.agent_type, row.domain, row.yaml_config["title"])
        assert told == (text,) * 4
        assert row.yaml_config["other"] == {text: [text]}
        assert [text] == row.capabilities == row.triggers


async def test_a_name_with_control_characters_is_refused(
    session: AsyncSession, tmp_path: Path
) -> None:
    control = [text for text in CLASSICS if not text.isprintable()]
    for number, text in enumerate(control):
        define(tmp_path, number, text)

    report = await sync_folder(session, tmp_path)

    assert len(report.failed) == len(control)
    assert all("control character" in failure.reason for failure in report.failed)
    assert await rows(session, AgentDefinition.agent_name) == []


async def test_a_file_of_any_name_is_known_by_it(session: AsyncSession, tmp_path: Path) -> None:
    for number, name in enumerate(FILE_NAMES):
        write(tmp_path / f"f{name}.yaml", f"agent-{number}")

    await sync_folder(session, tmp_path, root="root")

    found = await rows(session, AgentDefinition.registry_path)
    assert {path for (path,) in found} == {f"root/f{name}.yaml" for name in FILE_NAMES}


async def test_a_folder_of_any_root_is_pruned_alone(session: AsyncSession, tmp_path: Path) -> None:
    write(tmp_path / "other/other.yaml", "other")
    await sync_folder(session, tmp_path / "other", root="a/b/c/d/agent-x")
    for root in ("%", "a/b/c/_/agent-_", "100%_\\", *A_FEW[1:]):
        folder = tmp_path / "pruned"
        gone = write(folder / "gone.yaml", "gone")
        write(folder / "stays.yaml", "stays")
        await sync_folder(session, folder, root=root)
        gone.unlink()

        report = await sync_folder(session, folder, root=root, prune=True)

        assert [version.name for version in report.deactivated] == ["gone"]
    active = await rows(session, AgentDefinition.agent_name, AgentDefinition.is_active)
    assert [tuple(row) for row in active] == [("gone", False), ("other", True), ("stays", True)]


async def test_a_root_that_postgresql_does_not_store_is_refused(
    session: AsyncSession, tmp_path: Path
) -> None:
    write(tmp_path / "a.yaml", "agent-a")
    for root in UNSTORABLE:
        report = await sync_folder(session, tmp_path, root=root)

        assert [failure.reason for failure in report.failed] == ["has a path that is not UTF-8"]
    assert await rows(session, AgentDefinition.agent_name) == []
