from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from support.pools import (
    changed,
    running,
)

from agentobs import Database
from agentobs.errors import (
    ConnectionFailedError,
    ReadOnlyError,
)

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]


async def test_a_read_session_begins_read_only_whatever_the_connection_was_told(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database) as (db, _):
        async with db.read_session(autocommit=True) as session:
            await session.execute(text("SET default_transaction_read_only = off"))
        async with db.read_session() as session:
            with pytest.raises(ReadOnlyError):
                await session.execute(text("CREATE TABLE notes (note text)"))


@pytest.mark.parametrize("target", ["read-write", "primary", "any"])
async def test_read_sessions_go_where_writing_sessions_go(
    module_database: DatabaseSettings, target: str
) -> None:
    settings = changed(module_database, target_session_attrs=target)
    async with Database(settings) as db, db.read_session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_the_pools_tell_of_themselves_apart(module_database: DatabaseSettings) -> None:
    async with Database(module_database) as db, db.read_session() as session:
        await session.scalar(text("SELECT 1"))

        assert (db.pool_stats().in_use, db.pool_stats().size) == (0, 20)
        assert (db.read_pool_stats().in_use, db.read_pool_stats().size) == (1, 5)


async def test_a_replica_that_is_away_is_named_by_its_variable(
    module_database: DatabaseSettings,
) -> None:
    nowhere = SecretStr("postgresql://reader@127.0.0.1:1/agents")
    async with Database(changed(module_database, read_url=nowhere)) as db:
        session = db.read_session()
        with pytest.raises(ConnectionFailedError, match="AGENTOBS_READ_URL"):
            await session.connection()
        await session.close()
