from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from support.registry import names, row_of, set_by_hand, write

from agentobs.models import AgentDefinition
from agentobs.registry import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir()
    return path


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


async def test_a_row_of_before_the_registry_is_updated_by_its_name_and_version(
    session: AsyncSession, folder: Path
) -> None:
    session.add(AgentDefinition(agent_name="agent-a", agent_type="legacy", yaml_config={}))
    await session.flush()
    write(folder / "a.yaml", "agent-a")

    report = await sync_folder(session, folder)

    assert names(report.updated) == [("agent-a", "1.0.0")]
    assert (await row_of(session, "agent-a")).agent_type == "specialist"


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
