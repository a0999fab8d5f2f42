"""What an operator has: a shell, the commands, psql, and a look into the database."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import NullPool

from agentobs import create_engine, migrations
from agentobs.embedded.binaries import find_binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

REPOSITORY = Path(__file__).resolve().parents[2]

# The tests go on when a revision is added.
HEAD = next(migrations.revisions()).revision
NEXT = f"{int(HEAD) + 1:04}"
SCRIPTS = Path(sys.executable).parent


@asynccontextmanager
async def connect(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(settings, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@asynccontextmanager
async def connect_in_transaction(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Connect for a transaction that stays open; what it did is rolled back."""
    engine = create_engine(settings, poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


def url_of(settings: DatabaseSettings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


def environment(settings: DatabaseSettings | None = None, **extra: str) -> dict[str, str]:
    """Return the environment of a command: nothing of ours but what the test says."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AGENTOBS_")}
    if settings is not None:
        inherited["AGENTOBS_DATABASE_URL"] = url_of(settings)
    return inherited | extra


def alembic(
    *arguments: str,
    settings: DatabaseSettings | None = None,
    cwd: Path = REPOSITORY,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command `alembic` as an operator does, from the repository root."""
    return _run("alembic", arguments, cwd, environment(settings, **extra))


def agentobs(
    *arguments: str, settings: DatabaseSettings | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the command `agentobs`, from a folder that has nothing of ours in it."""
    return _run("agentobs", arguments, Path("/"), environment(settings, **extra))


def psql(settings: DatabaseSettings, sql: str) -> subprocess.CompletedProcess[str]:
    """Feed the SQL to psql, which stops at the first error."""
    program = find_binaries() / "psql"
    return subprocess.run(
        [program, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", url_of(settings)],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )


def _run(
    program: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / program, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
