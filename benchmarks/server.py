"""The server that is measured, and the words for what ran."""

from __future__ import annotations

import os
import platform
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs.embedded import EmbeddedServer


@contextmanager
def fresh_server() -> Iterator[EmbeddedServer]:
    """Run a new embedded server with its default, durable settings."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        with embedded.running_server(data) as server:
            yield server
        embedded.stop_server(data)


def environment(server: EmbeddedServer) -> str:
    """Name the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "alembic", "asyncpg"))
    postgres = embedded.server_status(server.data_directory).version
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, PostgreSQL {postgres}, {packages}"
    )
