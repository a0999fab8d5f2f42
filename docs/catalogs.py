"""Write alembic/expected_catalogs.json from databases that the revisions have made.

Run with `python -m docs.catalogs` after a revision was added; it starts a server of its own.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs import embedded, migrations
from agentobs.migrations.comparison.expected import ExpectedCatalogs, expected_file
from agentobs.migrations.comparison.reading import read_catalog
from agentobs.migrations.connection import open_connection
from agentobs.migrations.scripts import VERSION_TABLE
from agentobs.settings import DatabaseSettings

if TYPE_CHECKING:
    from agentobs.migrations.comparison.catalog import Catalog


async def read_at(revision: str, settings: DatabaseSettings) -> Catalog:
    """Migrate an empty schema to the revision, and read what is ours in it."""
    await migrations.upgrade(revision, settings=settings)
    async with open_connection(settings) as connection:
        found = await connection.run_sync(read_catalog)
    tables = {name: table for name, table in found.tables.items() if name != VERSION_TABLE}
    return found.model_copy(update={"tables": tables})


async def read_all(settings: DatabaseSettings) -> ExpectedCatalogs:
    """Return the catalogs of the empty schema at both revisions, the newer one left in it."""
    return ExpectedCatalogs(
        at_0003=await read_at("0003", settings), at_head=await read_at("head", settings)
    )


def as_text(catalogs: ExpectedCatalogs) -> str:
    """Return the content of the file."""
    return catalogs.model_dump_json(indent=1, exclude_defaults=True) + "\n"


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        with embedded.running_server(data) as server:
            settings = DatabaseSettings(database_url=server.url)
            expected_file().write_text(as_text(asyncio.run(read_all(settings))), encoding="utf-8")
        embedded.stop_server(data)
    print("alembic/expected_catalogs.json is written")  # noqa: T201


if __name__ == "__main__":
    main()
