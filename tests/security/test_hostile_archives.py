"""Archives of any name and any content: what is not what it says it is changes nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.hostile import A_FEW, UNSTORABLE, add_canary, nothing_else_changes
from support.maintenance import FEBRUARY, add_rows, letting_go, maintained
from support.shell import connect

from agentobs.errors import AgentobsError
from agentobs.maintenance import release, restore
from agentobs.maintenance.archive import (
    ArchivedColumn,
    Fingerprint,
    list_archives,
    load_archive,
    read_manifest,
    verify_archive,
)
from agentobs.maintenance.archive.manifest import render
from agentobs.maintenance.tables import EVENTS, Schema
from agentobs.migrations.connection import open_connection
from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

HOSTILE = "'; DROP TABLE canary.kept; --\"%s :a\\:b {} $$ $1 `x`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives") / HOSTILE


@pytest.fixture(scope="module")
def expired(
    agentobs_server: URL, agentobs_template: str, folder: Path
) -> Iterator[DatabaseSettings]:
    """Yield a database whose one month is in an archive in a folder of a hostile name."""
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        settings = settings_for(agentobs_server, name)
        run(_let_go(settings, folder))
        yield settings


async def _let_go(settings: DatabaseSettings, folder: Path) -> None:
    await add_canary(settings)
    async with connect(settings) as connection:
        await add_rows(connection, FEBRUARY, 2, user_request=HOSTILE.replace("'", "''"))
    await maintained(settings, letting_go(FEBRUARY, archive=folder))


@pytest.fixture
def archive(expired: DatabaseSettings, folder: Path) -> Iterator[Path]:
    """Yield the archive; what a test makes of its manifest is undone."""
    del expired
    (listed,) = list_archives(folder)
    path = Path(listed.location)
    manifest = path.with_suffix(".manifest.json")
    intact = manifest.read_bytes()
    yield path
    manifest.write_bytes(intact)


def forge(archive: Path, **fields: Any) -> None:
    """Let the manifest say something else, under a checksum that is right."""
    manifest = read_manifest(archive).model_copy(update=fields)
    archive.with_suffix(".manifest.json").write_bytes(render(manifest))


FORGERIES: dict[str, dict[str, Any]] = {
    "another table": {"table": "canary.kept"},
    "a table of a hostile name": {"table": HOSTILE},
    "a column of a hostile name": {"columns": (ArchivedColumn(name=HOSTILE, type="text"),)},
    "no column": {"columns": ()},
    "a type of a hostile name": {
        "columns": (
            ArchivedColumn(name="id", type="uuid"),
            ArchivedColumn(name="user_request", type=HOSTILE),
        )
    },
    "a payload": {"kind": "payload"},
    "no month": {"month": None},
    "a month before all others": {"month": date(1, 1, 1)},
    "a month after all others": {"month": date(9999, 12, 31)},
    "another month": {"month": date(2024, 3, 1)},
    "another column of original ids": {"original_id_column": HOSTILE},
    "another column of verbatim texts": {"verbatim_column": HOSTILE},
    "another number of rows": {"fingerprint": Fingerprint(3, "0")},
    "another content": {"content_sha256": HOSTILE},
    "another file": {"sha256": HOSTILE},
    "another size": {"size": 10**18},
}


@pytest.mark.parametrize("fields", FORGERIES.values(), ids=FORGERIES)
async def test_a_manifest_that_lies_brings_nothing_back(
    expired: DatabaseSettings, archive: Path, fields: dict[str, Any]
) -> None:
    forge(archive, **fields)

    async with nothing_else_changes(expired):
        with pytest.raises(AgentobsError):
            await restore(archive, settings=expired)


@pytest.mark.parametrize("asked", [restore, release])
async def test_what_is_not_there_is_not_brought_back_or_released(
    expired: DatabaseSettings, asked: Any
) -> None:
    async with nothing_else_changes(expired):
        for name in (*A_FEW, *UNSTORABLE):
            with pytest.raises(AgentobsError):
                await asked(name, settings=expired)


async def test_an_archive_is_not_loaded_into_what_is_not_there(
    expired: DatabaseSettings, archive: Path
) -> None:
    async with nothing_else_changes(expired), open_connection(expired) as connection:
        for into in (*A_FEW, *UNSTORABLE):
            with pytest.raises(AgentobsError):
                await load_archive(
                    connection, archive, schema=Schema("public"), table=EVENTS, into=into
                )
            await connection.rollback()


async def test_what_a_manifest_says_of_its_origin_is_only_told(
    expired: DatabaseSettings, archive: Path
) -> None:
    origin = ("database", "partition", "schema_name", "earliest", "latest", "schema_revision")
    forge(archive, **dict.fromkeys(origin, HOSTILE))

    async with connect(expired) as connection:
        found = await restore(archive, settings=expired)

        assert (found.partition, found.rows) == (HOSTILE, 2)
        requests = await connection.scalars(text(f"SELECT user_request FROM {EVENTS.name}"))
        assert list(requests) == [HOSTILE, HOSTILE]
        assert await connection.scalar(text("SELECT count(*) FROM canary.kept")) == 1
    verify_archive(archive)
