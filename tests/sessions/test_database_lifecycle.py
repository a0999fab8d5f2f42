from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.pool import NullPool
from support.models import new_definition
from support.pools import (
    all_in_use,
    eventually,
    onlooker,
    pid_of_next,
    running,
)
from support.relay import relay
from support.shell import url_of

from agentobs import AgentDefinition, Database
from agentobs.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DatabaseNotRunningError,
    ReadOnlyError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs import DatabaseSettings

pytest_plugins = ["support.pool_fixtures"]

STUCK = "SELECT pg_sleep(30)"
USES: dict[str, Callable[[Database], object]] = {
    "session": Database.session,
    "begin": Database.begin,
    "connection": Database.connection,
    "read_session": Database.read_session,
    "engine": lambda database: database.engine,
    "pool_stats": Database.pool_stats,
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


async def test_it_runs_within_its_block_and_leaves_nothing_behind(
    module_database: DatabaseSettings,
) -> None:
    async with onlooker(module_database) as eye:
        async with Database(module_database) as db, db.connection() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
            assert await eye.count() == 5

        assert await eye.is_alone()


async def test_a_second_start_does_nothing(module_database: DatabaseSettings) -> None:
    async with running(module_database) as (db, eye):
        pids = await eye.pids()
        await db.start()

        assert await eye.pids() == pids
        assert db.pool_stats().opened == 5


async def test_a_start_that_fails_can_be_repeated(module_database: DatabaseSettings) -> None:
    async with relay(module_database) as wire, onlooker(module_database) as eye:
        db = Database(wire.settings)
        await wire.close()
        with pytest.raises(ConnectionFailedError, match=r"can't connect to .* is the server up"):
            await db.start()
        with pytest.raises(DatabaseNotRunningError):
            db.pool_stats()

        await wire.open()
        async with db:
            assert await eye.count() == 5


@pytest.mark.parametrize("open_by_then", [0, 1])
async def test_a_start_that_is_cancelled_leaves_nothing_behind(
    module_database: DatabaseSettings, caplog: pytest.LogCaptureFixture, open_by_then: int
) -> None:
    async def some_are_open() -> bool:
        stats = db.pool_stats()
        return stats.waiting > 0 and stats.in_use >= open_by_then

    async with onlooker(module_database) as eye:
        db = Database(module_database)
        start = asyncio.create_task(db.start())
        await asyncio.sleep(0)
        await eventually(some_are_open, pause=0)
        assert not start.done()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        # A connection that nobody gave back would complain here.
        gc.collect()

        assert caplog.records == []
        await eventually(eye.is_alone)
        with pytest.raises(DatabaseNotRunningError):
            db.pool_stats()


async def test_begin_commits_at_the_end_of_its_block(agentobs_database: DatabaseSettings) -> None:
    async with Database(agentobs_database) as db:
        async with db.begin() as session:
            session.add(new_definition())

        assert await _count(db) == 1


async def test_begin_rolls_back_on_an_error(agentobs_database: DatabaseSettings) -> None:
    async def fail() -> None:
        async with db.begin() as session:
            session.add(new_definition())
            await session.flush()
            raise ZeroDivisionError

    async with Database(agentobs_database) as db:
        with pytest.raises(ZeroDivisionError):
            await fail()

        assert await _count(db) == 0


async def test_a_session_commits_when_it_is_told_to(agentobs_database: DatabaseSettings) -> None:
    async with Database(agentobs_database) as db:
        async with db.session() as session:
            definition = new_definition()
            session.add(definition)
            await session.commit()
            assert definition.agent_name.startswith("agent-"), "it stays readable"
            session.add(new_definition())
            await session.flush()

        assert await _count(db) == 1


async def test_a_connection_is_for_core(agentobs_database: DatabaseSettings) -> None:
    name = {"agent_name": "a", "agent_type": "specialist", "yaml_config": {}}
    async with Database(agentobs_database) as db:
        async with db.connection() as connection:
            await connection.execute(insert(AgentDefinition), [name])
            await connection.commit()

        assert await _count(db) == 1


@pytest.mark.parametrize("autocommit", [False, True])
async def test_a_read_session_reads_and_does_not_write(
    agentobs_database: DatabaseSettings, *, autocommit: bool
) -> None:
    async with Database(agentobs_database) as db:
        async with db.begin() as session:
            session.add(new_definition())

        async with db.read_session(autocommit=autocommit) as session:
            assert len((await session.scalars(select(AgentDefinition))).all()) == 1
            session.add(new_definition())
            with pytest.raises(ReadOnlyError, match=r"db\.session\(\)"):
                await session.flush()
        assert await _count(db) == 1


async def test_read_sessions_have_a_pool_of_their_own_opened_when_it_is_used(
    module_database: DatabaseSettings,
) -> None:
    async with running(module_database, pool_size=1, read_pool_size=2) as (db, eye):
        assert await eye.count() == 1
        async with (
            db.connection(),
            db.read_session() as one,
            db.read_session(autocommit=True) as other,
        ):
            pids = [await each.scalar(text("SELECT pg_backend_pid()")) for each in (one, other)]
            assert await eye.pids() > set(pids)
            assert await eye.count() == 3

        assert db.pool_stats().opened == 1


@each_use
def test_it_is_not_used_before_the_start(
    module_database: DatabaseSettings, use: Callable[[Database], object]
) -> None:
    with pytest.raises(DatabaseNotRunningError, match="async with db"):
        use(Database(module_database))


@each_use
async def test_it_is_not_used_after_the_stop(
    module_database: DatabaseSettings, use: Callable[[Database], object]
) -> None:
    async with Database(module_database) as db:
        pass

    with pytest.raises(DatabaseNotRunningError, match="async with db"):
        use(db)


async def test_what_was_made_before_the_stop_is_not_used_after_it(
    module_database: DatabaseSettings,
) -> None:
    async with onlooker(module_database) as eye:
        async with Database(module_database) as db:
            session, connection, read_session = db.session(), db.connection(), db.read_session()

        for use in (session.connection, connection.start, read_session.connection):
            with pytest.raises(DatabaseNotRunningError, match="was stopped"):
                await use()
        assert await eye.is_alone()


async def test_a_second_stop_does_nothing(module_database: DatabaseSettings) -> None:
    db = Database(module_database)
    await db.stop()
    await db.start()
    await db.stop()
    await db.stop()


def test_it_can_be_started_again_in_another_event_loop(
    module_database: DatabaseSettings,
) -> None:
    db = Database(module_database)

    async def use() -> int:
        async with db:
            return await pid_of_next(db)

    assert asyncio.run(use()) != asyncio.run(use())


async def test_without_settings_the_environment_is_read(
    module_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(module_database))
    monkeypatch.setenv("AGENTOBS_POOL_MIN_SIZE", "2")
    async with Database() as db:
        assert db.pool_stats().opened == 2


async def test_options_of_the_host_go_to_the_engine(module_database: DatabaseSettings) -> None:
    async with Database(module_database, pool_size=3) as db, all_in_use(db, 3):
        assert db.pool_stats().size == 3
        assert db.engine.sync_engine.pool.size() == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"poolclass": NullPool}, {"pool": None}], ids=str)
def test_another_pool_is_refused(
    module_database: DatabaseSettings, options: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match=r"a pool of its own.*create_engine"):
        Database(module_database, **options)


async def _count(db: Database) -> int:
    async with db.session() as session:
        return await session.scalar(select(func.count()).select_from(AgentDefinition)) or 0
