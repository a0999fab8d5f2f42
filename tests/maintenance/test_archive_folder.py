"""Names, repetitions and damage: what a folder of archives may hold."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from sqlalchemy import text
from support.archives import (
    PARTITION,
    SOURCE,
    archived,
    differing_rows,
    manifest_of,
    restored,
    store_events,
)

from agentobs.errors import (
    ArchiveError,
    ConfigurationError,
)
from agentobs.maintenance.archive import (
    BatchLimits,
    Manifest,
    list_archives,
    read_manifest,
    verify_archive,
    write_archive,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_the_same_rows_are_archived_once(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)

    first = await archived(agentobs_engine, tmp_path)
    again = await archived(agentobs_engine, tmp_path)

    assert (first.is_new, again.is_new) == (True, False)
    assert (again.location, again.manifest) == (first.location, first.manifest)
    assert len(list(tmp_path.iterdir())) == 2


async def test_rows_that_come_late_get_an_archive_of_their_own(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    names = []
    for count in (1, 2, 3):
        await store_events(agentobs_engine, count)
        await archived(agentobs_engine, tmp_path)
        names.append(Path((await archived(agentobs_engine, tmp_path)).location).name)
        async with agentobs_engine.begin() as connection:
            await connection.execute(text("TRUNCATE agent_transformation_events"))

    assert names == [f"{PARTITION}{suffix}.parquet" for suffix in ("", "-2", "-3")]
    assert [found.manifest and found.manifest.rows for found in list_archives(tmp_path)] == [
        1,
        2,
        3,
    ]


async def test_archives_are_for_their_owner_only(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    archive = await archived(agentobs_engine, tmp_path / "new" / "folder")

    for path in (Path(archive.location), manifest_of(archive)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_list_shows_what_is_finished_and_what_is_not(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    moved = await archived(agentobs_engine, tmp_path)
    manifest_of(moved).rename(tmp_path / "c.manifest.json")
    archive = await archived(agentobs_engine, tmp_path)
    (tmp_path / "b.parquet.partial").touch()
    (tmp_path / "notes.txt").touch()

    finished, unfinished, alone = list_archives(tmp_path)

    assert (finished.location, finished.manifest) == (archive.location, archive.manifest)
    assert finished.problem is None
    assert "unfinished" in str(unfinished.problem)
    assert "only its manifest" in str(alone.problem)
    with pytest.raises(ArchiveError, match="no such folder"):
        list_archives(tmp_path / "nowhere")


async def test_a_partition_may_have_any_name(agentobs_engine: AsyncEngine, tmp_path: Path) -> None:
    name = 'a "b"/%s:c'
    await store_events(agentobs_engine, 3)
    async with agentobs_engine.begin() as connection:
        quoted = name.replace('"', '""')
        await connection.exec_driver_sql(f'ALTER TABLE {PARTITION} RENAME TO "{quoted}"')

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, replace(SOURCE, partition=name), tmp_path)

    assert Path(archive.location).parent == tmp_path
    assert verify_archive(archive.location).partition == name


async def test_progress_counts_the_rows_written_and_those_read_back(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 5)
    seen: list[tuple[int, int]] = []

    await archived(
        agentobs_engine,
        tmp_path,
        limits=BatchLimits(rows=2),
        progress=lambda done, total: seen.append((done, total)),
    )

    assert seen == [(2, 5), (4, 5), (5, 5)] * 2


MEGABYTE = 1024 * 1024


async def test_memory_is_bounded_by_a_batch_not_by_the_partition(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    # 40 MB in rows of 200 kB.
    async with agentobs_engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO agent_transformation_events "
                "(event_type, correlation_id, target_agent, context_snapshot) "
                "SELECT 'x', gen_random_uuid(), 'y', jsonb_build_object('c', ("
                "  SELECT string_agg(md5(n::text || g), '') FROM generate_series(1, 6250) AS g)) "
                "FROM generate_series(1, 200) AS n"
            )
        )
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        archive = await archived(agentobs_engine, tmp_path, limits=BatchLimits(bytes=MEGABYTE))
        await restored(agentobs_engine, archive.location)
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)

    assert archive.manifest.size > 15 * MEGABYTE
    assert peak < 15 * MEGABYTE
    assert await differing_rows(agentobs_engine) == 0


async def test_a_url_of_fsspec_is_a_folder_too(agentobs_engine: AsyncEngine) -> None:
    await store_events(agentobs_engine, 3)
    target = f"memory://archives/{os.urandom(4).hex()}"

    archive = await archived(agentobs_engine, target)

    assert archive.location == f"{target}/{PARTITION}.parquet"
    assert not (await archived(agentobs_engine, target)).is_new
    assert verify_archive(archive.location) == archive.manifest
    await restored(agentobs_engine, archive.location)
    assert await differing_rows(agentobs_engine) == 0
    await store_events(agentobs_engine, 1)
    assert (await archived(agentobs_engine, target)).location.endswith("-2.parquet")
    assert [found.problem for found in list_archives(target)] == [None, None]


async def test_a_url_that_nobody_knows_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="nosuch://host/x can't be opened"):
        list_archives("nosuch://user:secret@host/x")
    with pytest.raises(ConfigurationError, match=r"s3://bucket can't be opened: .*s3fs"):
        list_archives("s3://bucket")


async def test_a_file_url_is_a_folder_with_all_its_guarantees(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    archive = await archived(agentobs_engine, (tmp_path / "a b").as_uri())

    assert Path(archive.location).is_file()
    assert Path(archive.location).parent == tmp_path / "a b"


async def test_the_manifest_is_json_that_people_can_read(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 2)
    archive = await archived(agentobs_engine, tmp_path)

    told = json.loads(manifest_of(archive).read_text())

    assert told["table"] == "agent_transformation_events"
    assert told["fingerprint"][0] == 2
    assert re.fullmatch(r"\d{4}-\d\d-01 00:00:01\+00", told["latest"])
    assert told["columns"][0] == {"name": "id", "type": "uuid", "generated": False}
    assert told["size"] == Path(archive.location).stat().st_size
    assert isinstance(read_manifest(archive.location), Manifest)
