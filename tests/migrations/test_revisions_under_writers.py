"""A revision waits for writers in a way that ends none of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS, insert_row
from support.pools import eventually
from support.shell import connect, connect_in_transaction

from agentobs import migrations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

WAITS = text(
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE NOT granted AND application_name = 'agentobs migrations' "
    "AND datname = current_database()"
)


async def until_it_waits(connection: AsyncConnection) -> None:
    async def is_waiting() -> bool:
        return bool(await connection.scalar(WAITS))

    await eventually(is_waiting)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0003", "0004"),
        ("0004", "0005"),
        ("0005", "0006"),
        ("0007", "0008"),
        ("0008", "0007"),
        ("0006", "0005"),
        ("0005", "0004"),
        ("0004", "0003"),
    ],
)
async def test_a_transaction_that_writes_one_table_after_the_other_is_not_ended(
    empty: DatabaseSettings, before: str, after: str
) -> None:
    """It holds a lock that the revision wants, and wants one that the revision would hold."""
    await migrations.upgrade(before, settings=empty)
    move = migrations.upgrade if after > before else migrations.downgrade
    async with connect(empty) as connection, connect_in_transaction(empty) as writer:
        await writer.execute(text(f"UPDATE {METRICS} SET metric_type = 'x' WHERE false"))
        moving = asyncio.create_task(move(after, settings=empty))
        await until_it_waits(connection)

        await insert_row(writer, EVENTS)
        await writer.commit()
        await moving

        assert await migrations.current(settings=empty) == after
        assert await connection.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 1
