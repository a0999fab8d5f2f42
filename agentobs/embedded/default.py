"""The database of whoever names none: the embedded server."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import SecretStr

from agentobs.embedded.binaries import is_installed
from agentobs.embedded.server import running_server
from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs.settings import DatabaseSettings


@contextmanager
def with_database(settings: DatabaseSettings) -> Iterator[DatabaseSettings]:
    """Yield settings that name a database: these, or the embedded server's for the block.

    Says on stderr that it is the embedded one, and where its data is. Raises ConfigurationError
    where no URL is set and the extra is not installed: production never gets a silent local
    database.
    """
    if settings.names_database_for_migrations:
        yield settings
        return
    if not is_installed():
        raise ConfigurationError(
            "AGENTOBS_DATABASE_URL is not set: give it a URL such as "
            "postgresql://user:password@host:5432/database, or install the embedded PostgreSQL "
            "for a try-out: pip install 'agentobs-orm[embedded]'",
            setting="AGENTOBS_DATABASE_URL",
        )
    with running_server(settings.data_dir) as server:
        print(
            "agentobs: AGENTOBS_DATABASE_URL is not set: using the embedded PostgreSQL, "
            f"its data is in {server.data_directory}",
            file=sys.stderr,
        )
        yield settings.model_copy(update={"database_url": SecretStr(server.url)})
