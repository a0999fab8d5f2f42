from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.hostile import add_canary, now

from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL
    from support.hostile import State

    from agentobs import DatabaseSettings


@pytest.fixture(scope="module")
def guarded(agentobs_server: URL, agentobs_template: str) -> Iterator[DatabaseSettings]:
    """Yield a database at head that a module's tests share, with a canary in it."""
    with temporary_database(agentobs_server, template=agentobs_template) as name:
        settings = settings_for(agentobs_server, name)
        run(add_canary(settings))
        yield settings


@pytest.fixture(scope="module")
def untouched(guarded: DatabaseSettings) -> State:
    """Return what there is at first, for the tests of a module that is to change nothing."""
    return asyncio.run(now(guarded))
