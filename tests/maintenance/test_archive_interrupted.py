"""A run that is killed, or finds no room, leaves nothing that looks finished."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.archives import PARTITION, SOURCE, differing_rows, restored, store_events
from support.shell import REPOSITORY, environment

from agentobs.errors import ArchiveError
from agentobs.maintenance.archive import (
    BatchLimits,
    list_archives,
    verify_archive,
    write_archive,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from agentobs import DatabaseSettings

FILES = {f"{PARTITION}.parquet", f"{PARTITION}.manifest.json"}

# Archives the partition with a batch for each row, and dies at a point of its way.
CHILD = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from support.archives import SOURCE
from agentobs import create_engine
from agentobs.errors import ArchiveError
from agentobs.maintenance.archive import BatchLimits, write_archive

target, point, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = {"batch": 0, "before rename": 0, "after rename": 0}

def reached(here, *_):
    seen[here] += 1
    if (here, seen[here]) == (point, number):
        os.kill(os.getpid(), signal.SIGKILL)

def replace(self, name, replace=Path.replace):
    reached("before rename")
    replace(self, name)
    reached("after rename")

Path.replace = replace
if point == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))

async def main():
    engine = create_engine()
    try:
        async with engine.connect() as connection:
            await write_archive(
                connection, SOURCE, target, limits=BatchLimits(rows=1),
                progress=lambda done, total: reached("batch"),
            )
            await connection.rollback()
    except ArchiveError as error:
        sys.exit(str(error))
    finally:
        await engine.dispose()

asyncio.run(main())
"""


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run_child(
    database: DatabaseSettings, target: Path, point: str, number: int
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, target, point, str(number)],
        env=environment(database, PYTHONPATH=str(REPOSITORY / "tests")),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("died", "leaves"),
    [
        (("batch", 1), {f"{PARTITION}.parquet.partial"}),
        (("batch", 3), {f"{PARTITION}.parquet.partial"}),
        (("before rename", 1), {f"{PARTITION}.parquet.partial"}),
        (("after rename", 1), {f"{PARTITION}.parquet"}),
        # The fifth row is the first that is read back.
        (("batch", 5), {f"{PARTITION}.parquet"}),
        (("before rename", 2), {f"{PARTITION}.parquet", f"{PARTITION}.manifest.json.partial"}),
        (("after rename", 2), FILES),
    ],
)
async def test_a_run_after_one_that_was_killed_finishes_its_work(
    agentobs_database: DatabaseSettings,
    agentobs_engine: AsyncEngine,
    tmp_path: Path,
    died: tuple[str, int],
    leaves: set[str],
) -> None:
    await store_events(agentobs_engine, 4, user_request="why?")

    killed = run_child(agentobs_database, tmp_path, *died)

    assert killed.returncode == -9, killed.stderr
    assert names_in(tmp_path) == leaves
    assert [found.problem is None for found in list_archives(tmp_path)] == [leaves == FILES]

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path)

    assert archive.is_new == (leaves != FILES)
    assert names_in(tmp_path) == FILES
    assert verify_archive(archive.location).rows == 4
    await restored(agentobs_engine, archive.location)
    assert await differing_rows(agentobs_engine) == 0


async def test_a_disk_that_fills_up_is_a_clear_error_and_no_archive(
    agentobs_database: DatabaseSettings, agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 40, user_request=os.urandom(4000).hex())

    refused = run_child(agentobs_database, tmp_path, "full", 20_000)

    assert refused.returncode == 1, refused.stderr
    assert f"{PARTITION}.parquet: no room for it (" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("limits", [BatchLimits(rows=3), BatchLimits()])
async def test_the_connection_goes_on_after_a_full_disk(
    agentobs_engine: AsyncEngine, small_disk: Path, limits: BatchLimits
) -> None:
    async with agentobs_engine.connect() as connection:
        for _ in range(100):
            await store_events(agentobs_engine, 1, user_request=os.urandom(4000).hex())

        with pytest.raises(ArchiveError, match=r"no room for it \(No space left") as caught:
            await write_archive(connection, SOURCE, small_disk, limits=limits)

        assert caught.value.path == str(small_disk / f"{PARTITION}.parquet")
        assert list(small_disk.iterdir()) == []
        archive = await write_archive(connection, SOURCE, small_disk.parent)
    assert archive.manifest.rows == 100


async def test_a_folder_that_can_not_be_made_is_a_clear_error(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    async with agentobs_engine.connect() as connection:
        with pytest.raises(ArchiveError, match="File exists"):
            await write_archive(connection, SOURCE, tmp_path / "file" / "archives")
