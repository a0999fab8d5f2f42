"""An archive that is not what was written is found out, and not used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.archives import (
    PARTITION,
    archived,
    manifest_of,
    restored,
    store_events,
)

from agentobs.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveFormatError,
)
from agentobs.maintenance.archive import (
    read_manifest,
    verify_archive,
)
from agentobs.maintenance.archive.manifest import FORMAT, render

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_any_flipped_byte_of_the_file_is_found(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 5, user_request="why?")
    archive = await archived(agentobs_engine, tmp_path)
    path = Path(archive.location)
    intact = path.read_bytes()

    for place in range(0, len(intact), max(1, len(intact) // 50)):
        flipped = bytearray(intact)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        with pytest.raises(ArchiveDamagedError, match="its bytes are others"):
            verify_archive(path)
    path.write_bytes(intact)
    assert verify_archive(path) == archive.manifest


async def test_any_flipped_byte_of_the_manifest_is_found(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    archive = await archived(agentobs_engine, tmp_path)
    path = manifest_of(archive)
    intact = path.read_bytes()

    for place in range(len(intact)):
        if intact[place : place + 1].isspace():
            continue
        flipped = bytearray(intact)
        flipped[place] ^= 0x01
        path.write_bytes(flipped)
        with pytest.raises(ArchiveDamagedError):
            verify_archive(archive.location)


async def test_a_value_that_was_changed_is_found_even_where_all_checksums_were_renewed(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 2, user_request="why?")
    archive = await archived(agentobs_engine, tmp_path)
    await store_events(agentobs_engine, 1)
    other = await archived(agentobs_engine, tmp_path)

    forged = archive.manifest.model_copy(
        update={"sha256": other.manifest.sha256, "size": other.manifest.size}
    )
    manifest_of(other).write_bytes(render(forged))

    with pytest.raises(ArchiveDamagedError, match="3 rows, where 2 were archived"):
        verify_archive(other.location)
    manifest_of(other).write_bytes(
        render(forged.model_copy(update={"fingerprint": other.manifest.fingerprint}))
    )
    with pytest.raises(ArchiveDamagedError, match="its rows are others"):
        verify_archive(other.location)


async def test_an_archive_of_a_newer_format_asks_for_a_newer_package(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    archive = await archived(agentobs_engine, tmp_path)
    newer = archive.manifest.model_copy(update={"format": FORMAT + 1})
    manifest_of(archive).write_bytes(render(newer))

    with pytest.raises(ArchiveFormatError, match="upgrade agentobs-orm") as caught:
        read_manifest(archive.location)

    assert (caught.value.found, caught.value.known) == (FORMAT + 1, FORMAT)


async def test_an_archive_without_its_manifest_is_not_read(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    archive = await archived(agentobs_engine, tmp_path)
    manifest_of(archive).unlink()

    with pytest.raises(ArchiveError, match="unfinished, or elsewhere"):
        verify_archive(archive.location)


async def test_an_archive_that_was_damaged_is_not_relied_on(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    damaged = Path((await archived(agentobs_engine, tmp_path)).location)
    damaged.write_bytes(damaged.read_bytes()[:-1])

    archive = await archived(agentobs_engine, tmp_path)

    assert archive.is_new
    assert Path(archive.location).name == f"{PARTITION}-2.parquet"


async def test_a_damaged_file_leaves_no_row_behind(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    archive = await archived(agentobs_engine, tmp_path)
    forged = archive.manifest.model_copy(update={"content_sha256": "0" * 64})
    manifest_of(archive).write_bytes(render(forged))

    with pytest.raises(ArchiveDamagedError, match="its rows are others"):
        await restored(agentobs_engine, archive.location)

    async with agentobs_engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass('restored')")) is None
