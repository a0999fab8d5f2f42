from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
from support.models import new_event
from support.pgbouncer import needs_pgbouncer, pgbouncer
from support.shell import environment

from agentobs import AgentTransformationEvent, Database, migrations
from agentobs.errors import (
    ConfigurationError,
    DatabaseError,
    PoolerRefusedError,
    ReadOnlyError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

CLIENT = Path(__file__).parents[1] / "support" / "pooler_client.py"
PROCESSES, ROUNDS = 3, 6

pytestmark = needs_pgbouncer


@pytest.fixture
def pooled(agentobs_server: URL, agentobs_database: DatabaseSettings) -> Iterator[DatabaseSettings]:
    """Yield settings of a pooler whose many clients share three backends."""
    with pgbouncer(agentobs_server, agentobs_database, mode="transaction", backends=3) as found:
        yield found.model_copy(update={"pooler": "transaction"})


async def test_three_services_share_the_backends_of_a_transaction_pooler(
    pooled: DatabaseSettings, agentobs_database: DatabaseSettings
) -> None:
    variables = environment(pooled, AGENTOBS_POOLER="transaction", PYTHONWARNINGS="error")
    processes = [
        subprocess.Popen(
            [sys.executable, CLIENT, str(ROUNDS)], env=variables, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES
    async with Database(agentobs_database) as db, db.session() as session:
        counted = await session.scalar(select(func.count()).select_from(AgentTransformationEvent))
    assert counted == sum(map(int, printed)) > 0


async def test_a_read_session_behind_a_pooler_refuses_writes(pooled: DatabaseSettings) -> None:
    async with Database(pooled) as db:
        for autocommit in (False, True):
            async with db.read_session(autocommit=autocommit) as session:
                session.add(new_event())
                with pytest.raises(ReadOnlyError, match=r"db\.session"):
                    await session.flush()


async def test_a_pooler_that_nobody_named_is_named_by_the_error(
    pooled: DatabaseSettings,
) -> None:
    statement = text("SELECT 'prepared on one backend'")
    unnamed = Database(pooled.model_copy(update={"pooler": None}))
    async with unnamed as db, db.connection() as first, db.connection() as second:
        await first.execute(statement)
        await first.commit()
        # The backend that was used last is given out first.
        await second.execute(text("SELECT 1"))

        with pytest.raises(DatabaseError, match="set AGENTOBS_POOLER=transaction"):
            await first.execute(statement)


@pytest.mark.parametrize("run", [migrations.upgrade, migrations.check, migrations.current])
async def test_migrations_through_a_pooler_that_is_named_are_refused_with_the_way_out(
    pooled: DatabaseSettings, run: Callable[..., Awaitable[object]]
) -> None:
    with pytest.raises(PoolerRefusedError, match="AGENTOBS_MIGRATION_URL"):
        await run(settings=pooled)


async def test_the_direct_address_migrates_what_the_pooler_serves(
    pooled: DatabaseSettings, agentobs_database: DatabaseSettings
) -> None:
    both = pooled.model_copy(update={"migration_url": agentobs_database.database_url})

    await migrations.upgrade(settings=both)

    async with Database(both) as db:
        assert (await db.health()).revision == await migrations.current(settings=both)


async def test_options_that_a_pooler_does_not_pass_on_are_refused_before_it_does(
    pooled: DatabaseSettings,
) -> None:
    assert pooled.database_url is not None
    url = f"{pooled.database_url.get_secret_value()}?options=-c%20geqo%3Doff"
    with pytest.raises(ConfigurationError, match="options"):
        await Database(type(pooled)(database_url=url, pooler="transaction")).start()
