from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.recorders import strict_recorder
from support.shell import connect

from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from agentobs import DatabaseSettings, Recorder

EMPTY = text("TRUNCATE agent_definitions, agent_transformation_events, router_performance_metrics")


@pytest.fixture(scope="module")
def database_of_module(agentobs_server: URL, agentobs_template: str) -> Iterator[DatabaseSettings]:
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        yield settings_for(agentobs_server, name)


@pytest.fixture
def agentobs_database(
    request: pytest.FixtureRequest, agentobs_server: URL, agentobs_template: str
) -> Iterator[DatabaseSettings]:
    """Yield the settings of a database that is the test's own, or empty again after it.

    To clone one takes most of a test's time here: a module that changes the schema says so, by
    `CHANGES_SCHEMA = True`.
    """
    if getattr(request.module, "CHANGES_SCHEMA", False):
        with temporary_database(agentobs_server, template=agentobs_template) as name:
            yield settings_for(agentobs_server, name)
        return
    settings: DatabaseSettings = request.getfixturevalue("database_of_module")
    yield settings
    run(_emptied(settings))


async def _emptied(settings: DatabaseSettings) -> None:
    async with connect(settings) as connection:
        await connection.execute(EMPTY)


@pytest.fixture
def recorder(agentobs_database: DatabaseSettings, tmp_path: Path) -> Iterator[Recorder]:
    """Yield a strict recorder on a database of the test's own, which drops nothing here."""
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        yield recorder
