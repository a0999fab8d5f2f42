from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.pgbouncer import needs_pgbouncer, pgbouncer
from support.shell import HEAD, connect

from agentobs import migrations
from agentobs.errors import PoolerRefusedError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from agentobs import DatabaseSettings

pytestmark = needs_pgbouncer


async def test_a_transaction_pooler_is_refused_with_the_way_out(
    agentobs_server: URL, empty: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, empty, mode="transaction") as pooled:
        with pytest.raises(PoolerRefusedError, match="AGENTOBS_MIGRATION_URL"):
            await migrations.upgrade(settings=pooled)
        with pytest.raises(PoolerRefusedError):
            await migrations.upgrade(settings=pooled.model_copy(update={"schema_name": "obs"}))
        assert await migrations.current(settings=empty) is None
        async with connect(empty) as connection:
            schema = await connection.scalar(text("SELECT to_regnamespace('obs')::text"))
        assert schema is None

        direct = pooled.model_copy(update={"migration_url": empty.database_url})
        await migrations.upgrade(settings=direct)

    assert await migrations.current(settings=empty) == HEAD


async def test_a_session_pooler_is_as_good_as_the_server(
    agentobs_server: URL, empty: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, empty, mode="session") as pooled:
        await migrations.upgrade(settings=pooled)

    assert await migrations.current(settings=empty) == HEAD
