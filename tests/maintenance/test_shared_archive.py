"""Two databases may keep their archives in one folder: neither writes over the other's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support.maintenance import FEBRUARY, add_rows, letting_go, maintained, texts_in
from support.shell import connect

from agentobs.maintenance.archive import list_archives
from agentobs.maintenance.archive.folders import LocalFolder
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


async def test_both_of_two_databases_find_their_rows_in_the_folder_that_they_share(
    agentobs_database: DatabaseSettings,
    agentobs_server: URL,
    agentobs_template: str,
    look: AsyncConnection,
    tmp_path: Path,
) -> None:
    await add_rows(look, FEBRUARY, 2)
    policy = letting_go(FEBRUARY, archive=tmp_path)
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        other = settings_for(agentobs_server, name)
        async with connect(other) as look_there:
            await add_rows(look_there, FEBRUARY, 5)
            await asyncio.gather(*(maintained(one, policy) for one in (agentobs_database, other)))
            assert await texts_in(look) == await texts_in(look_there) == []

    found = [archive.manifest for archive in list_archives(tmp_path)]
    assert sorted(manifest.rows for manifest in found if manifest) == [2, 5]


async def test_who_finds_the_folder_taken_waits_for_its_turn(
    agentobs_database: DatabaseSettings,
    look: AsyncConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await add_rows(look, FEBRUARY, 2)
    taken, asked = LocalFolder(tmp_path), asyncio.Event()
    assert taken.lock()
    lock = LocalFolder.lock

    def ask(folder: LocalFolder) -> bool:
        asked.set()
        return lock(folder)

    monkeypatch.setattr(LocalFolder, "lock", ask)
    run = asyncio.create_task(maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path)))
    await asked.wait()
    assert len(await texts_in(look)) == 2
    assert list_archives(tmp_path) == ()
    taken.unlock()
    await run

    assert await texts_in(look) == []
