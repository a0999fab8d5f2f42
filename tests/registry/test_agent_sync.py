from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker

from agentobs.errors import DefinitionError
from agentobs.models import AgentDefinition
from agentobs.registry import AgentVersion, SyncReport, sync_folder
from agentobs.registry.folders import LoadedFolder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir()
    return path


def write(path: Path, name: str, version: str = "1.0.0", *, more: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"name: {name}\nversion: '{version}'\nagent_type: specialist\n"
        f"capabilities: [reading]\ntriggers: [read]\n{more}"
    )
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


async def row_of(session: AsyncSession, name: str, version: str = "1.0.0") -> AgentDefinition:
    statement = select(AgentDefinition).where(
        AgentDefinition.agent_name == name, AgentDefinition.agent_version == version
    )
    found = await session.scalars(statement, execution_options={"populate_existing": True})
    return found.one()


def names(versions: tuple[AgentVersion, ...]) -> list[tuple[str, str]]:
    return [(version.name, version.version) for version in versions]


async def set_by_hand(session: AsyncSession, name: str, **values: Any) -> None:
    await session.execute(
        update(AgentDefinition).where(AgentDefinition.agent_name == name).values(**values)
    )


async def test_a_definition_becomes_a_row_with_all_that_the_file_says(
    session: AsyncSession, folder: Path
) -> None:
    path = write(folder / "a.yaml", "agent-a", more="domain: reading\ntitle: A\nsize: 3\n")

    report = await sync_folder(session, folder, now=NOON)

    row = await row_of(session, "agent-a")
    assert names(report.added) == [("agent-a", "1.0.0")]
    assert report.ok
    assert (row.agent_type, row.domain, row.status) == ("specialist", "reading", "active")
    assert (row.capabilities, row.triggers, row.trigger_patterns) == (["reading"], ["read"], [])
    assert row.parsed_metadata == {"title": "A"}
    assert row.yaml_config["size"] == 3
    assert row.registry_path == path.as_posix()
    assert row.definition_hash is not None
    assert len(row.definition_hash) == 64
    assert row.last_loaded_at == NOON
    assert row.is_active is True


async def test_a_second_run_changes_only_when_the_row_was_loaded(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder, now=NOON)
    columns = select(AgentDefinition.__table__)
    before = (await session.execute(columns)).mappings().one()

    report = await sync_folder(session, folder, now=NOON + timedelta(hours=1))

    after = (await session.execute(columns)).mappings().one()
    assert names(report.unchanged) == [("agent-a", "1.0.0")]
    assert not report.added + report.updated + report.deactivated + report.reactivated
    changed = {key for key in after if after[key] != before[key]}
    assert changed - {"updated_at"} == {"last_loaded_at"}
    assert after["last_loaded_at"] == NOON + timedelta(hours=1)


async def test_an_edited_file_updates_its_row_but_neither_scores_nor_id(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)
    await set_by_hand(
        session,
        "agent-a",
        success_rate=Decimal("0.9000"),
        quality_score=Decimal("0.8000"),
        avg_execution_time_ms=120,
    )
    before = await row_of(session, "agent-a")
    kept = (before.id, before.created_at)

    write(folder / "a.yaml", "agent-a", more="domain: edited\n")
    report = await sync_folder(session, folder)

    row = await row_of(session, "agent-a")
    assert names(report.updated) == [("agent-a", "1.0.0")]
    assert row.domain == "edited"
    assert (row.id, row.created_at) == kept
    assert (row.success_rate, row.quality_score) == (Decimal("0.9"), Decimal("0.8"))
    assert row.avg_execution_time_ms == 120


async def test_a_key_that_leaves_the_file_leaves_the_row(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a", more="domain: reading\n")
    await sync_folder(session, folder)

    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)

    assert (await row_of(session, "agent-a")).domain is None


async def test_a_new_version_adds_a_row_and_leaves_the_old_one(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    await sync_folder(session, folder)

    write(folder / "a.yaml", "agent-a", "1.1.0")
    report = await sync_folder(session, folder)

    assert names(report.added) == [("agent-a", "1.1.0")]
    assert (await row_of(session, "agent-a", "1.0.0")).is_active is True


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


async def test_a_row_of_before_the_registry_is_updated_by_its_name_and_version(
    session: AsyncSession, folder: Path
) -> None:
    session.add(AgentDefinition(agent_name="agent-a", agent_type="legacy", yaml_config={}))
    await session.flush()
    write(folder / "a.yaml", "agent-a")

    report = await sync_folder(session, folder)

    assert names(report.updated) == [("agent-a", "1.0.0")]
    assert (await row_of(session, "agent-a")).agent_type == "specialist"


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


async def test_a_file_that_cannot_be_read_is_reported_and_the_others_load(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    (folder / "b.yaml").write_text("name: b\nx: [\n")
    write(folder / "c.yaml", "agent-c")

    report = await sync_folder(session, folder)

    assert not report.ok
    assert names(report.added) == [("agent-a", "1.0.0"), ("agent-c", "1.0.0")]
    (failure,) = report.failed
    assert (failure.path, failure.line) == (folder / "b.yaml", 3)
    assert "not valid YAML" in failure.reason


async def test_of_two_files_with_one_name_and_version_the_first_is_loaded(
    session: AsyncSession, folder: Path
) -> None:
    first = write(folder / "a.yaml", "agent-a")
    second = write(folder / "b.yaml", "agent-a", more="domain: second\n")

    report = await sync_folder(session, folder)

    (failure,) = report.failed
    assert failure.path == second
    assert failure.reason == f"defines agent-a 1.0.0, as {first} does already"
    assert (await row_of(session, "agent-a")).domain is None


async def test_files_are_found_in_sub_folders_but_hidden_ones_and_link_loops_are_not_followed(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "team" / "a.yml", "agent-a")
    write(folder / "b.YAML", "agent-b")
    write(folder / ".hidden.yaml", "agent-c")
    write(folder / ".git" / "d.yaml", "agent-d")
    (folder / "notes.txt").write_text("name: agent-e")
    (folder / "team" / "loop").symlink_to(folder)

    report = await sync_folder(session, folder)

    assert names(report.added) == [("agent-a", "1.0.0"), ("agent-b", "1.0.0")]
    assert report.ok


async def test_a_link_to_a_file_is_read_and_a_dangling_or_circular_one_is_reported(
    session: AsyncSession, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.yaml").symlink_to(write(tmp_path / "elsewhere.yaml", "agent-a"))
    (folder / "b.yaml").symlink_to(folder / "nowhere.yaml")
    (folder / "c.yaml").symlink_to(folder / "c.yaml")

    report = await sync_folder(session, folder)

    assert names(report.added) == [("agent-a", "1.0.0")]
    assert [failure.path.name for failure in report.failed] == ["b.yaml", "c.yaml"]


async def test_a_file_name_that_is_not_utf_8_is_reported(
    session: AsyncSession, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    (folder / os.fsdecode(b"b\xff.yaml")).write_text("name: agent-b")

    report = await sync_folder(session, folder)

    assert [failure.reason for failure in report.failed] == ["has a path that is not UTF-8"]
    assert names(report.added) == [("agent-a", "1.0.0")]


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


async def test_warnings_name_their_file(session: AsyncSession, folder: Path) -> None:
    path = write(folder / "a.yaml", "agent-a", more="mode: x\nmode: y\n")

    report = await sync_folder(session, folder)

    (warning,) = report.warnings
    assert warning.path == path
    assert "line 7: key 'mode' stands twice" in warning.text


async def test_values_at_their_bounds_are_stored(session: AsyncSession, folder: Path) -> None:
    name = "n" * 255
    big = "9" * 400
    phrase = "\N{GRINNING FACE}" * 200
    write(
        folder / "a.yaml",
        name,
        more=f"size: {big}\ndeep: {'[' * 90}{']' * 90}\nkeywords: ['{phrase}']\nnot: null\n",
    )

    await sync_folder(session, folder)

    row = await row_of(session, name)
    assert row.yaml_config["size"] == int(big)
    assert row.triggers == ["read", phrase]


async def test_more_files_than_bind_parameters_allow_in_one_statement_are_loaded(
    session: AsyncSession, folder: Path
) -> None:
    for number in range(2500):
        (folder / f"{number}.yaml").write_text(
            f"name: agent-{number:04}\nagent_type: t\ncapabilities: [c]\ntriggers: [t]"
        )

    first = await sync_folder(session, folder)
    second = await sync_folder(session, folder)

    assert len(first.added) == 2500
    assert len(second.unchanged) == 2500


async def test_the_caller_commits(session: AsyncSession, folder: Path) -> None:
    write(folder / "a.yaml", "agent-a")

    await sync_folder(session, folder)
    await session.rollback()

    assert (await session.scalars(select(AgentDefinition.agent_name))).all() == []


async def test_replicas_that_sync_at_once_add_each_version_once(
    agentobs_engine: AsyncEngine, folder: Path
) -> None:
    for number in range(20):
        write(folder / f"{number}.yaml", f"agent-{number}")
    sessions = async_sessionmaker(agentobs_engine)
    everybody_is_connected = asyncio.Barrier(4)

    async def sync() -> SyncReport:
        async with sessions.begin() as session:
            await session.connection()
            await everybody_is_connected.wait()
            return await sync_folder(session, folder)

    reports = await asyncio.gather(*(sync() for _ in range(4)))

    assert sorted(len(report.added) for report in reports) == [0, 0, 0, 20]
    assert sorted(len(report.unchanged) for report in reports) == [0, 20, 20, 20]


async def test_replicas_with_different_files_of_the_same_agents_do_not_deadlock(
    agentobs_engine: AsyncEngine, folder: Path
) -> None:
    sessions = async_sessionmaker(agentobs_engine)
    old, new = folder / "old", folder / "new"

    async def sync(release: Path) -> None:
        async with sessions.begin() as session:
            await session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
            await sync_folder(session, release)

    for turn in range(5):
        for number in range(10):
            mark = f"domain: turn_{turn}\n"
            write(old / f"{number}.yaml", f"agent-{number}", more=mark if number % 2 else "")
            write(new / f"{number}.yaml", f"agent-{number}", more="" if number % 2 else mark)
        await asyncio.gather(sync(old), sync(new), sync(old), sync(new))

    async with sessions() as session:
        assert len((await session.scalars(select(AgentDefinition.id))).all()) == 10


async def test_a_row_that_another_writer_adds_meanwhile_is_updated(
    agentobs_engine: AsyncEngine, folder: Path
) -> None:
    write(folder / "a.yaml", "agent-a")
    sessions = async_sessionmaker(agentobs_engine)
    async with sessions() as writer, sessions() as syncing:
        writer.add(AgentDefinition(agent_name="agent-a", agent_type="other", yaml_config={}))
        await writer.flush()
        sync = asyncio.create_task(sync_folder(syncing, folder))
        await asyncio.sleep(0.3)
        assert not sync.done()

        await writer.commit()
        await sync
        await syncing.commit()

    async with sessions() as session:
        assert (await row_of(session, "agent-a")).agent_type == "specialist"
