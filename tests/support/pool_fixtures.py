"""A database for the tests of a module that leave nothing in it: a plugin, named by each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from agentobs import DatabaseSettings


@pytest.fixture(scope="module")
def module_database(agentobs_server: URL, agentobs_template: str) -> Iterator[DatabaseSettings]:
    """Yield the settings of a database at head, which nobody else is connected to."""
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        yield settings_for(agentobs_server, name)
