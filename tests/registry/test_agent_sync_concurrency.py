from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from support.registry import row_of, write

from agentobs.models import AgentDefinition
from agentobs.registry import SyncReport, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir()
    return path


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
