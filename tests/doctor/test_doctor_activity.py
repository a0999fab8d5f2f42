"""Who is in the way of others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import examined, faults_of, findings_of, fix, of_private
from support.event_rows import EVENTS, METRICS, insert_row
from support.pools import eventually
from support.private_server import private_server
from support.shell import connect_in_transaction

from agentobs import migrations
from agentobs.doctor import Severity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

AT_ONCE = {
    "transaction_age": timedelta(0),
    "idle_transaction_age": timedelta(0),
    "lock_age": timedelta(0),
}
SAID = "what a user said"


@asynccontextmanager
async def open_transaction(
    settings: DatabaseSettings, statement: str
) -> AsyncIterator[AsyncConnection]:
    """Keep a transaction open, whose end is somebody else's to bring about."""
    async with connect_in_transaction(settings) as connection:
        await connection.execute(text(statement))
        yield connection
        await connection.invalidate()


async def test_a_transaction_that_was_forgotten_is_ended(
    agentobs_database: DatabaseSettings,
) -> None:
    async with open_transaction(agentobs_database, f"SELECT '{SAID}' FROM {EVENTS}"):
        (forgotten,) = await findings_of("transactions", agentobs_database, **AT_ONCE)

        assert forgotten.severity is Severity.WARNING
        assert "(agentobs, idle in transaction)" in forgotten.words
        # It may hold data of users.
        assert SAID not in forgotten.model_dump_json()
        fix(agentobs_database, [forgotten])

        async def is_gone() -> bool:
            return await findings_of("transactions", agentobs_database, **AT_ONCE) == []

        await eventually(is_gone)


@pytest.mark.parametrize("own", ["agentobs maintenance", "agentobs online"])
async def test_work_of_ours_that_takes_its_time_is_let_be(
    agentobs_database: DatabaseSettings, own: str
) -> None:
    settings = agentobs_database.model_copy(update={"application_name": own})
    async with open_transaction(settings, "SELECT 1"):
        (at_work,) = await findings_of("transactions", agentobs_database, **AT_ONCE)

    assert (at_work.severity, at_work.fix) == (Severity.NOTICE, None)


async def test_a_transaction_that_is_young_or_of_another_database_is_in_nobodys_way(
    agentobs_database: DatabaseSettings, agentobs_empty_database: DatabaseSettings
) -> None:
    async with open_transaction(agentobs_database, "SELECT 1"):
        assert await findings_of("transactions", agentobs_database) == []
        assert await findings_of("transactions", agentobs_empty_database, **AT_ONCE) == []


async def test_a_lock_that_keeps_everybody_out_is_named_with_who_waits(
    agentobs_database: DatabaseSettings,
) -> None:
    lock = f"LOCK TABLE {EVENTS} IN ACCESS EXCLUSIVE MODE"
    async with open_transaction(agentobs_database, lock):
        diagnosis = await examined(
            agentobs_database, check_timeout=timedelta(seconds=0.5), **AT_ONCE
        )

        (found,) = faults_of("locks", diagnosis)
        assert found.severity is Severity.WARNING
        assert f"has AccessExclusiveLock on {EVENTS}" in found.words
        assert "it keeps everybody out" in found.words
        # What had to wait for it says so, and did not wait for long.
        blocked = [each for each in diagnosis.findings if "others hold a lock" in each.words]
        assert {each.check for each in blocked} >= {"partitions", "default"}
        fix(agentobs_database, [found])

    assert await findings_of("locks", agentobs_database, **AT_ONCE) == []


async def test_a_lock_of_a_migration_is_told_and_let_be(
    agentobs_database: DatabaseSettings,
) -> None:
    settings = agentobs_database.model_copy(update={"application_name": "agentobs migrations"})
    async with open_transaction(settings, f"LOCK TABLE {EVENTS}"):
        (held,) = await findings_of("locks", agentobs_database, **AT_ONCE)

    assert (held.severity, held.fix) == (Severity.NOTICE, None)
    assert "it keeps everybody out" in held.words
    assert held.words.endswith("let it end")


async def test_a_lock_that_keeps_writers_out_is_named(
    agentobs_database: DatabaseSettings,
) -> None:
    async with open_transaction(agentobs_database, f"LOCK TABLE {METRICS} IN SHARE MODE"):
        (found,) = await findings_of("locks", agentobs_database, **AT_ONCE)

    assert f"has ShareLock on {METRICS}" in found.words
    assert "it keeps writers out" in found.words


async def test_a_writer_is_in_the_way_only_where_somebody_waits_for_it(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    async with open_transaction(agentobs_database, "SELECT 1") as writer:
        await insert_row(writer)
        assert await findings_of("locks", agentobs_database, **AT_ONCE) == []
        pid = await writer.scalar(text("SELECT pg_backend_pid()"))
        async with waiting_for_a_lock(hand, agentobs_database):
            (found,) = await findings_of("locks", agentobs_database, **AT_ONCE)

    assert found.subject == f"backend {pid}"
    assert "1 wait for it" in found.words


@asynccontextmanager
async def waiting_for_a_lock(
    hand: AsyncConnection, settings: DatabaseSettings
) -> AsyncIterator[None]:
    async def wait() -> None:
        async with connect_in_transaction(settings) as connection:
            await connection.execute(text(f"LOCK TABLE {EVENTS} IN ACCESS EXCLUSIVE MODE"))

    async def is_waiting() -> bool:
        count = await hand.scalar(
            text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation' "
                "AND waitstart IS NOT NULL"
            )
        )
        return bool(count)

    task = asyncio.create_task(wait())
    await eventually(is_waiting)
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_prepared_transaction_that_nobody_ended_is_rolled_back() -> None:
    with private_server(options={"max_prepared_transactions": "3"}) as server:
        settings = of_private(server)
        await migrations.upgrade(settings=settings)
        async with connect_in_transaction(settings) as connection:
            await insert_row(connection)
            await connection.execute(text("PREPARE TRANSACTION 'it''s theirs'"))

        (prepared,) = await findings_of("transactions", settings, **AT_ONCE)

        assert prepared.subject == "it's theirs"
        fix(settings, [prepared])
        assert await findings_of("transactions", settings, **AT_ONCE) == []
