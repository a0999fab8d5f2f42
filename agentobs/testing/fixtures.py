"""The fixtures: most tests roll back, those that commit get a database of their own."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import URL, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from agentobs import migrations
from agentobs.errors import AgentobsError
from agentobs.sessions import create_engine
from agentobs.testing.databases import run, settings_for, temporary_database
from agentobs.testing.servers import ServerSource, choose_source, open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agentobs.settings import DatabaseSettings

_SOURCE = pytest.StashKey[ServerSource]()


def pytest_report_header(config: pytest.Config) -> str:
    """Say in the header of the run which PostgreSQL it uses, and why."""
    source = _source(config)
    return f"agentobs: PostgreSQL from: {source.kind} ({source.reason})"


@pytest.fixture(scope="session")
def agentobs_server(pytestconfig: pytest.Config) -> Iterator[URL]:
    """Yield the URL of the server's own database; the server runs for the whole test run."""
    with _server_or_exit(_source(pytestconfig)) as url:
        yield url


@pytest.fixture(scope="session")
def agentobs_template(agentobs_server: URL) -> Iterator[str]:
    """Yield the name of a database at head, made by the migrations once, to be cloned."""
    with temporary_database(agentobs_server) as name:
        run(migrations.upgrade(settings=settings_for(agentobs_server, name)))
        yield name


@pytest.fixture(scope="session")
def agentobs_shared_database(
    agentobs_server: URL, agentobs_template: str
) -> Iterator[DatabaseSettings]:
    """Yield the settings of the database at head in which no test commits."""
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        yield settings_for(agentobs_server, name)


@pytest.fixture
def agentobs_database(agentobs_server: URL, agentobs_template: str) -> Iterator[DatabaseSettings]:
    """Yield the settings of a database at head that is the test's own: it may commit."""
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        yield settings_for(agentobs_server, name)


@pytest.fixture
def agentobs_empty_database(agentobs_server: URL) -> Iterator[DatabaseSettings]:
    """Yield the settings of an empty database that is the test's own."""
    with temporary_database(agentobs_server) as name:
        yield settings_for(agentobs_server, name)


@pytest_asyncio.fixture
async def agentobs_engine(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on the test's own database."""
    engine = create_engine(agentobs_database)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def agentobs_session(
    agentobs_shared_database: DatabaseSettings,
) -> AsyncIterator[AsyncSession]:
    """Yield a session whose work is rolled back after the test, what it commits included."""
    engine = create_engine(agentobs_shared_database, poolclass=NullPool)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        ) as session:
            yield session
        await transaction.rollback()
    await engine.dispose()


@contextmanager
def _server_or_exit(source: ServerSource) -> Iterator[URL]:
    """End the run where there is no server: every test would say the same at length."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(open_server(source))
            with temporary_database(url):
                pass
        except AgentobsError as error:
            pytest.exit(f"agentobs: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        yield url


def _source(config: pytest.Config) -> ServerSource:
    if _SOURCE not in config.stash:
        config.stash[_SOURCE] = choose_source()
    return config.stash[_SOURCE]
