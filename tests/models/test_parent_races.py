"""A child and its parent's delete at once: one waits for the other, and no orphan is left."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import NullPool, text
from support.event_rows import EVENTS, FEBRUARY, MARCH, PARENT_KEY, insert_child, insert_row
from support.pools import eventually
from support.shell import connect

from agentobs import create_engine
from agentobs.errors import ConflictError, ConstraintError, DatabaseError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

ORPHANS = text(
    f"SELECT count(*) FROM {EVENTS} c WHERE parent_event_id IS NOT NULL "
    f"AND NOT EXISTS (SELECT FROM {EVENTS} WHERE id = c.parent_event_id)"
)
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
SNAPSHOTS = LEVELS[1:]
DELETE = text(f"DELETE FROM {EVENTS} WHERE id = :id")


@pytest_asyncio.fixture
async def eye(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into the database, in autocommit; no orphan is there in the end."""
    async with connect(agentobs_database) as found:
        yield found
        assert await found.scalar(ORPHANS) == 0


@pytest_asyncio.fixture
async def parent(eye: AsyncConnection) -> UUID:
    return await insert_row(eye)


@asynccontextmanager
async def transaction(
    settings: DatabaseSettings, level: str = "READ COMMITTED"
) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that has its snapshot already, where its level keeps one."""
    engine = create_engine(settings, poolclass=NullPool, isolation_level=level)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        yield connection
    await engine.dispose()


async def delete(connection: AsyncConnection, *keys: UUID) -> None:
    for key in keys:
        await connection.execute(DELETE, {"id": key})


async def waits(eye: AsyncConnection, task: asyncio.Task[Any], count: int = 1) -> None:
    """Wait until so many backends wait for a lock."""

    async def waiting() -> bool:
        assert not task.done()
        found: int = (await eye.execute(WAITING)).scalar_one()
        return found == count

    await eventually(waiting)


async def parent_of(eye: AsyncConnection, key: UUID) -> UUID | None:
    query = text(f"SELECT parent_event_id FROM {EVENTS} WHERE id = :id")
    found: UUID | None = (await eye.execute(query, {"id": key})).scalar_one()
    return found


@pytest.mark.parametrize("level", LEVELS)
async def test_a_delete_waits_for_an_open_insert_of_a_child_and_forgets_it(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID, level: str
) -> None:
    async with (
        transaction(agentobs_database, level) as writer,
        transaction(agentobs_database) as deleter,
    ):
        child = await insert_child(writer, parent)
        task = asyncio.create_task(delete(deleter, parent))
        await waits(eye, task)
        await writer.commit()
        await task
        await deleter.commit()

    assert await parent_of(eye, child) is None


async def test_a_delete_goes_on_when_the_open_insert_of_a_child_is_rolled_back(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    async with transaction(agentobs_database) as writer, transaction(agentobs_database) as deleter:
        await insert_child(writer, parent)
        task = asyncio.create_task(delete(deleter, parent))
        await waits(eye, task)
        await writer.rollback()
        await task
        await deleter.commit()

    assert await eye.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 0


async def test_an_insert_of_a_child_waits_for_an_open_delete_and_is_refused(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    async with transaction(agentobs_database) as writer, transaction(agentobs_database) as deleter:
        await delete(deleter, parent)
        task = asyncio.create_task(insert_child(writer, parent))
        await waits(eye, task)
        await deleter.commit()
        with pytest.raises(ConstraintError) as caught:
            await task

    assert caught.value.constraint == PARENT_KEY


@pytest.mark.parametrize("level", SNAPSHOTS)
async def test_an_insert_under_an_older_snapshot_fails_as_a_conflict(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID, level: str
) -> None:
    async with (
        transaction(agentobs_database, level) as writer,
        transaction(agentobs_database) as deleter,
    ):
        await delete(deleter, parent)
        task = asyncio.create_task(insert_child(writer, parent))
        await waits(eye, task)
        await deleter.commit()
        with pytest.raises(ConflictError) as caught:
            await task

    assert caught.value.sqlstate == "40001"


@pytest.mark.parametrize("level", SNAPSHOTS)
async def test_a_parent_that_was_deleted_after_the_snapshot_is_a_conflict_too(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID, level: str
) -> None:
    async with transaction(agentobs_database, level) as writer:
        await delete(eye, parent)
        with pytest.raises(ConflictError):
            await insert_child(writer, parent)


@pytest.mark.parametrize("level", LEVELS)
async def test_an_insert_of_a_child_goes_on_when_the_open_delete_is_rolled_back(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID, level: str
) -> None:
    async with (
        transaction(agentobs_database, level) as writer,
        transaction(agentobs_database) as deleter,
    ):
        await delete(deleter, parent)
        task = asyncio.create_task(insert_child(writer, parent))
        await waits(eye, task)
        await deleter.rollback()
        child = await task
        await writer.commit()

    assert await parent_of(eye, child) == parent


async def test_a_link_that_is_set_by_an_update_waits_for_an_open_delete_too(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    child = await insert_row(eye)
    link = text(f"UPDATE {EVENTS} SET parent_event_id = :parent WHERE id = :child")
    async with transaction(agentobs_database) as writer, transaction(agentobs_database) as deleter:
        await delete(deleter, parent)
        task = asyncio.create_task(writer.execute(link, {"parent": parent, "child": child}))
        await waits(eye, task)
        await deleter.commit()
        with pytest.raises(ConstraintError):
            await task


@pytest.mark.parametrize("level", SNAPSHOTS)
async def test_a_delete_under_a_snapshot_is_refused_in_words(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID, level: str
) -> None:
    async with transaction(agentobs_database, level) as deleter:
        with pytest.raises(DatabaseError, match="READ COMMITTED") as caught:
            await delete(deleter, parent)

    assert caught.value.sqlstate == "AO004"
    assert await eye.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 1


async def test_inserts_of_children_do_not_wait_for_each_other(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    async with transaction(agentobs_database) as first, transaction(agentobs_database) as second:
        children = [await insert_child(each, parent) for each in (first, second)]
        await first.commit()
        await second.commit()

    assert [await parent_of(eye, child) for child in children] == [parent, parent]


async def test_an_insert_without_a_parent_does_not_wait_for_a_delete(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    async with transaction(agentobs_database) as deleter:
        await delete(deleter, parent)
        await insert_row(eye)
        await deleter.commit()

    assert await eye.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 1


async def test_two_deletes_one_of_the_others_child_wait_for_a_writer_and_not_for_each_other(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    child = await insert_child(eye, parent)
    other = await insert_row(eye)
    async with (
        transaction(agentobs_database) as writer,
        transaction(agentobs_database) as first,
        transaction(agentobs_database) as second,
    ):
        await insert_child(writer, other)
        tasks = [asyncio.create_task(delete(first, parent))]
        await waits(eye, tasks[0], 1)
        tasks.append(asyncio.create_task(delete(second, child)))
        await waits(eye, tasks[1], 2)
        await writer.commit()
        await tasks[0]
        await first.commit()
        await tasks[1]
        await second.commit()

    assert await eye.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 2


async def test_two_deletes_in_opposite_order_do_not_end_in_a_deadlock(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    child = await insert_child(eye, parent)
    async with transaction(agentobs_database) as first, transaction(agentobs_database) as second:
        await delete(first, parent)
        task = asyncio.create_task(delete(second, child, parent))
        await waits(eye, task)
        await delete(first, child)
        await first.commit()
        await task
        await second.commit()

    assert await eye.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 0


async def test_a_change_of_a_parents_id_waits_for_an_open_insert_of_a_child(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    rename = text(f"UPDATE {EVENTS} SET id = agentobs_uuid7_at(now()) WHERE id = :id")
    async with transaction(agentobs_database) as writer, transaction(agentobs_database) as other:
        await insert_child(writer, parent)
        task = asyncio.create_task(other.execute(rename, {"id": parent}))
        await waits(eye, task)
        await writer.commit()
        with pytest.raises(ConstraintError) as caught:
            await task

    assert caught.value.constraint == PARENT_KEY


async def test_a_savepoint_that_is_rolled_back_lets_a_delete_go_on(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, parent: UUID
) -> None:
    async with transaction(agentobs_database) as writer:
        savepoint = await writer.begin_nested()
        await insert_child(writer, parent)
        await savepoint.rollback()

        await delete(eye, parent)


async def test_a_child_in_another_partition_is_forgotten_too(
    agentobs_database: DatabaseSettings, eye: AsyncConnection
) -> None:
    parent = await insert_row(eye, id=uuid7_at(FEBRUARY), started_at=FEBRUARY)
    async with transaction(agentobs_database) as writer, transaction(agentobs_database) as deleter:
        child = await insert_child(writer, parent, id=uuid7_at(MARCH), started_at=MARCH)
        task = asyncio.create_task(delete(deleter, parent))
        await waits(eye, task)
        await writer.commit()
        await task
        await deleter.commit()

    assert await parent_of(eye, child) is None
