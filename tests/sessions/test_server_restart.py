from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.pools import (
    AT_ONCE_SECONDS,
    all_in_use,
    changed,
    eventually,
    onlooker,
    pid_of,
    pid_of_next,
)
from support.private_server import private_server

from agentobs import Database, DatabaseSettings
from agentobs.errors import ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.private_server import PrivateServer

STUCK = "SELECT pg_sleep(30)"
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as running:
        yield running


@pytest.fixture
def settings(server: PrivateServer) -> DatabaseSettings:
    return _settings_for(server.url())


async def test_after_a_restart_that_is_noticed_no_statement_fails(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    async def it_is_noticed() -> bool:
        return db.pool_stats().idle == 0

    async with Database(settings) as db:
        before = await _pids(db, 8)
        await asyncio.to_thread(server.restart)
        await eventually(it_is_noticed)

        assert not await _pids(db, 8) & before
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled, stats.idle) == (16, 8, 8)


async def test_after_a_restart_unnoticed_each_connection_costs_one_failed_statement_at_most(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    failures: list[Exception] = []

    async def work(db: Database) -> None:
        for _ in range(5):
            try:
                await pid_of_next(db)
            except Exception as error:  # noqa: BLE001 (each is looked at below)
                failures.append(error)

    async with Database(settings) as db:
        await _pids(db, 8)
        # The event loop stands still meanwhile.
        server.restart()
        await asyncio.gather(*(work(db) for _ in range(8)))

        assert 1 <= len(failures) <= 8
        assert all(isinstance(each, ConnectionFailedError) for each in failures)
        assert all(isinstance(each, DBAPIError) for each in failures)
        assert len(await _pids(db, 8)) == 8
        stats = db.pool_stats()
        assert (stats.opened, stats.recycled, stats.idle) == (16, 8, 8)


async def test_a_restart_during_transactions_costs_each_of_them_one_statement(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    async with Database(settings) as db, all_in_use(db, 4) as connections:
        for each in connections:
            await each.execute(text("SELECT 1"))
        await asyncio.to_thread(server.restart)

        for each in connections:
            with pytest.raises(ConnectionFailedError, match="run it again") as caught:
                await each.execute(text("SELECT 1"))
            assert isinstance(caught.value, DBAPIError)
            assert caught.value.connection_invalidated
            await each.rollback()
            assert await pid_of(each)


async def test_a_commit_that_a_restart_cut_off_is_an_error(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    async def commit_late() -> None:
        async with db.begin() as session:
            await session.execute(text("SELECT 1"))
            await asyncio.to_thread(server.restart)

    async with Database(settings) as db:
        with pytest.raises(ConnectionFailedError, match="unless it was committing"):
            await commit_late()

        assert await pid_of_next(db)


async def test_a_backend_that_is_killed_in_mid_statement_is_an_error_that_tells_what_to_do(
    settings: DatabaseSettings,
) -> None:
    async def it_works() -> bool:
        try:
            return bool(await pid_of_next(db))
        except ConnectionFailedError as error:
            # The server recovers meanwhile.
            assert error.sqlstate in {None, "57P03", "08003"}, error  # noqa: PT017
            return False

    async def all_are_stuck() -> bool:
        return len(await eye.running(STUCK)) == 3

    async with Database(settings) as db:
        async with onlooker(settings) as eye:
            tasks = [asyncio.create_task(_execute(db, STUCK)) for _ in range(3)]
            await eventually(all_are_stuck)
            # The server ends all the others, too: their memory may be spoiled.
            os.kill(min(await eye.running(STUCK)), signal.SIGKILL)
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(error, ConnectionFailedError)
                assert isinstance(error, DBAPIError)
                assert "the pool opens another one, so run it again" in str(error)

        await eventually(it_works)
        assert len(await _pids(db, 8)) == 8


async def test_a_backend_that_is_terminated_in_mid_statement_is_an_error_that_tells_what_to_do(
    settings: DatabaseSettings,
) -> None:
    async with onlooker(settings) as eye, Database(settings) as db:
        task = asyncio.create_task(_execute(db, STUCK))
        await eventually(lambda: eye.running(STUCK))
        await eye.terminate(*await eye.running(STUCK))

        with pytest.raises(ConnectionFailedError, match=r"administrator command.*run it again"):
            await task
        assert await pid_of_next(db)


async def test_while_the_server_is_down_errors_are_quick_and_clear(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    async with Database(settings) as db:
        await asyncio.to_thread(server.stop)
        try:
            for _ in range(3):
                async with asyncio.timeout(AT_ONCE_SECONDS):
                    results = await asyncio.gather(
                        *(pid_of_next(db) for _ in range(25)), return_exceptions=True
                    )
                assert {type(each).__name__ for each in results} == {"ConnectionFailedError"}
            assert "is the server up, and are host and port right?" in str(results[-1])
            assert f"{server.host}:{server.port}" in str(results[-1])
            assert server.password not in str(results[-1])
        finally:
            server.start()

        assert await pid_of_next(db)


async def test_a_role_at_its_limit_of_connections_is_told_what_to_do(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    server.sql(f"CREATE ROLE limited LOGIN CONNECTION LIMIT 1 PASSWORD '{server.password}'")
    limited = _settings_for(server.url(user="limited"), pool_min_size=1)
    async with Database(limited) as db, all_in_use(db, 1):
        with pytest.raises(ConnectionFailedError, match="AGENTOBS_POOL_SIZE") as caught:
            await pid_of_next(db)

        assert caught.value.sqlstate == "53300"
        assert "max_connections" in str(caught.value)
    async with onlooker(settings) as eye:
        await eventually(eye.is_alone)


async def test_a_start_that_opens_only_some_connections_fails_and_leaves_none(
    server: PrivateServer, settings: DatabaseSettings
) -> None:
    server.sql(f"CREATE ROLE three LOGIN CONNECTION LIMIT 3 PASSWORD '{server.password}'")
    db = Database(_settings_for(server.url(user="three")))
    async with onlooker(settings) as eye:
        with pytest.raises(ConnectionFailedError) as caught:
            await db.start()
        assert caught.value.sqlstate == "53300"
        await eventually(eye.is_alone)

        server.sql("ALTER ROLE three CONNECTION LIMIT 5")
        async with db:
            assert await eye.count() == 5


async def test_a_database_that_is_missing_is_told_by_its_name(server: PrivateServer) -> None:
    missing = _settings_for(server.url().removesuffix(server.database) + "nowhere")
    with pytest.raises(ConnectionFailedError, match=r"nowhere.*CREATE DATABASE") as caught:
        await Database(missing).start()

    assert caught.value.sqlstate == "3D000"


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = _settings_for(f"postgresql://u:p@127.0.0.1:{port}/d", connect_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(ConnectionFailedError, match=f"127.0.0.1:{port}.*is the server up"):
            await Database(settings).start()

        assert 0.3 <= time.monotonic() - began < AT_ONCE_SECONDS


def _settings_for(url: str, **values: object) -> DatabaseSettings:
    return changed(DatabaseSettings.model_construct(database_url=SecretStr(url)), **values)


async def _pids(db: Database, count: int) -> set[int]:
    async with all_in_use(db, count) as connections:
        return {await pid_of(each) for each in connections}


async def _execute(db: Database, statement: str) -> None:
    async with db.connection() as connection:
        await connection.execute(text(statement))
