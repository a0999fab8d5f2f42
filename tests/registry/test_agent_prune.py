from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.registry import names, row_of, set_by_hand, write

from agentobs.errors import DefinitionError
from agentobs.models import AgentDefinition
from agentobs.registry import AgentVersion, sync_folder
from agentobs.registry.folders import LoadedFolder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir()
    return path


def move(folder: Path, name: str) -> Path:
    return folder.rename(folder.with_name(name))


def empty(folder: Path, leave: str) -> None:
    for path in folder.iterdir():
        path.unlink()
    if leave != "empty":
        folder.rmdir()
    if leave == "file":
        folder.touch()


async def test_without_prune_a_file_that_is_gone_changes_nothing(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    gone = write(folder / "b.yaml", "agent-b")
    await sync_folder(session, folder)

    gone.unlink()
    report = await sync_folder(session, folder)

    assert report.deactivated == ()
    assert (await row_of(session, "agent-b")).is_active is True


async def test_prune_deactivates_what_is_gone_and_forgets_its_path(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a", "2.0.0")
    gone = write(folder / "below" / "b.yaml", "agent-b")
    await sync_folder(session, folder)

    gone.unlink()
    report = await sync_folder(session, folder, prune=True)

    row = await row_of(session, "agent-b")
    assert report.deactivated == (
        AgentVersion(name="agent-b", version="1.0.0", path=gone.as_posix()),
    )
    assert (row.is_active, row.status, row.registry_path) == (False, "active", None)
    assert (await row_of(session, "agent-a", "2.0.0")).is_active is True


async def test_prune_deactivates_the_version_that_a_file_no_longer_has(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)

    write(folder / "a.yaml", "agent-a", "1.1.0")
    report = await sync_folder(session, folder, prune=True)

    assert names(report.deactivated) == [("agent-a", "1.0.0")]


async def test_a_second_prune_reports_nothing(session: AsyncSession, folder: Path) -> None:
    write(folder / "a.yaml", "agent-a")
    write(folder / "b.yaml", "agent-b")
    await sync_folder(session, folder)
    (folder / "b.yaml").unlink()
    await sync_folder(session, folder, prune=True)

    report = await sync_folder(session, folder, prune=True)

    assert report.deactivated == ()


async def test_prune_leaves_the_agents_of_other_folders(
    session: AsyncSession, folder: Path
) -> None:
    # Each of these shares a beginning, or a LIKE pattern, with the folder.
    folder = folder.with_name("agents_x")
    write(folder / "a.yaml", "agent-a")
    for number, other in enumerate(("agents_x2", "agents-x", "agentsyx")):
        write(folder.with_name(other) / "b.yaml", f"agent-{number}")
        await sync_folder(session, folder.with_name(other))
    await set_by_hand(session, "agent-0", registry_path=f"{folder}2/old.yaml")

    report = await sync_folder(session, folder, prune=True)

    assert report.deactivated == ()


async def test_prune_leaves_rows_that_came_from_no_file(
    session: AsyncSession, folder: Path
) -> None:
    session.add(AgentDefinition(agent_name="by-hand", agent_type="specialist", yaml_config={}))
    write(folder / "a.yaml", "agent-a")

    await sync_folder(session, folder, prune=True)

    assert (await row_of(session, "by-hand")).is_active is True


async def test_prune_keeps_the_agent_of_a_file_that_cannot_be_read(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    broken = write(folder / "b.yaml", "agent-b")
    await sync_folder(session, folder)

    broken.write_text("name: [")
    report = await sync_folder(session, folder, prune=True)

    assert report.deactivated == ()
    assert [failure.path for failure in report.failed] == [broken]
    assert (await row_of(session, "agent-b")).is_active is True


async def test_prune_deactivates_nothing_where_no_file_can_be_read(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)

    (folder / "a.yaml").rename(folder / "renamed.yaml").write_text("name: [")
    report = await sync_folder(session, folder, prune=True)

    assert report.deactivated == ()
    assert not report.ok


def test_a_folder_that_cannot_be_read_may_hold_what_lay_below_it() -> None:
    loaded = LoadedFolder("/agents", (), (), frozenset({"/agents/locked", "/agents/b.yaml"}))

    assert loaded.may_hold("/agents/locked/deep/a.yaml")
    assert loaded.may_hold("/agents/b.yaml")
    assert not loaded.may_hold("/agents/locked2/a.yaml")


async def test_a_file_that_returns_after_a_prune_is_active_again(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    path = write(folder / "b.yaml", "agent-b")
    await sync_folder(session, folder)
    path.unlink()
    await sync_folder(session, folder, prune=True)

    write(path, "agent-b")
    report = await sync_folder(session, folder)

    row = await row_of(session, "agent-b")
    assert names(report.reactivated) == [("agent-b", "1.0.0")]
    assert names(report.unchanged) == [("agent-a", "1.0.0")]
    assert (row.is_active, row.registry_path) == (True, path.as_posix())


async def test_a_row_switched_off_by_hand_stays_off_until_its_file_is_edited(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)
    await set_by_hand(session, "agent-a", is_active=False)

    await sync_folder(session, folder)
    assert (await row_of(session, "agent-a")).is_active is False

    write(folder / "a.yaml", "agent-a", more="domain: edited\n")
    await sync_folder(session, folder)
    assert (await row_of(session, "agent-a")).is_active is True


async def test_the_same_folder_elsewhere_is_unchanged_and_takes_over_the_rows(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)
    moved = move(folder, "moved")

    report = await sync_folder(session, moved, prune=True)

    assert names(report.unchanged) == [("agent-a", "1.0.0")]
    assert report.deactivated == ()
    assert (await row_of(session, "agent-a")).registry_path == f"{moved}/a.yaml"


async def test_a_root_of_its_own_makes_prune_find_the_rows_of_an_older_deployment(
    session: AsyncSession, folder: Path
) -> None:
    first, second = folder / "release-1", folder / "release-2"
    write(first / "a.yaml", "agent-a")
    write(first / "b.yaml", "agent-b")
    await sync_folder(session, first, root="team/agents")
    write(second / "a.yaml", "agent-a")

    report = await sync_folder(session, second, root="team/agents", prune=True)

    assert names(report.deactivated) == [("agent-b", "1.0.0")]
    assert (await row_of(session, "agent-a")).registry_path == "team/agents/a.yaml"


async def test_a_link_to_the_folder_counts_as_the_folder(
    session: AsyncSession, folder: Path
) -> None:
    link = folder.with_name("current")
    link.symlink_to(folder)
    write(folder / "a.yaml", "agent-a")

    await sync_folder(session, link)

    assert (await row_of(session, "agent-a")).registry_path == f"{link}/a.yaml"


@pytest.mark.parametrize(
    ("make", "reason"),
    [("nothing", "does not exist"), ("file", "is no folder"), ("empty", "holds no .yaml")],
)
async def test_a_folder_without_definitions_is_refused_and_nothing_is_pruned(
    session: AsyncSession, folder: Path, make: str, reason: str
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)
    empty(folder, make)

    with pytest.raises(DefinitionError, match=reason):
        await sync_folder(session, folder, prune=True)
    assert (await row_of(session, "agent-a")).is_active is True
