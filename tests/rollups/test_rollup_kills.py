"""Folds that are killed, cancelled, raced and written into: answers stay right, all goes on."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, delete, event, text, update
from support.rollups import (
    DAY,
    EVERYTHING,
    HOUR,
    LATER,
    MINUTE,
    NOON,
    decision,
    differences,
    fold,
    folder,
    opened,
    run,
    store_rows,
)

from agentobs import RouterPerformanceMetric, create_engine
from agentobs.analytics import Window
from agentobs.errors import AgentobsError, ConflictError, ConnectionFailedError
from agentobs.keys import uuid7_at
from agentobs.rollups import FAMILIES, ROUTING, Store, bring_up_to_date

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs import DatabaseSettings

GONE = text("SELECT pg_advisory_xact_lock(1634689651, 'agentobs_rollup_state'::regclass::int)")
SHORT = Window(NOON - 3 * HOUR, NOON + 2 * DAY)
SEED = 20_240_310
MOVE = text(
    "UPDATE router_performance_metrics SET id = :id, measured_at = :there WHERE id = "
    "(SELECT id FROM router_performance_metrics ORDER BY random() LIMIT 1)"
)


class _KilledError(Exception):
    pass


async def fold_killed(settings: DatabaseSettings, statement: int) -> bool:
    """Fold, and lose the connection before the statement of that number; tell if it came to it."""
    engine = create_engine(settings, poolclass=NullPool)
    statements = count(1)

    def before(*arguments: Any) -> None:
        if next(statements) == statement:
            # The socket goes without a word, as with the process: the server rolls back.
            arguments[0].connection.driver_connection.terminate()
            raise _KilledError

    connection = await engine.connect()
    event.listen(engine.sync_engine, "before_cursor_execute", before)
    try:
        for family in FAMILIES:
            store = Store(connection, "public")
            await bring_up_to_date(store, family, LATER, patience_seconds=0)
    except (_KilledError, ConnectionFailedError):
        return True
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)
        await connection.invalidate()
        await connection.close()
        await engine.dispose()
    return False


async def test_a_fold_that_is_killed_anywhere_leaves_nothing_wrong(
    agentobs_database: DatabaseSettings,
) -> None:
    await store_rows(agentobs_database, decision(NOON - HOUR), run(NOON - HOUR))
    await fold(agentobs_database, NOON + 10 * MINUTE)
    rows = [decision(NOON + number * HOUR) for number in range(30)]
    await store_rows(agentobs_database, *rows, decision(NOON - HOUR), run(NOON))

    statement = 1
    async with opened(agentobs_database) as session:
        while await fold_killed(agentobs_database, statement):
            # The server sees that the killed one is gone, and gives its locks up.
            await session.execute(GONE)
            await session.rollback()
            assert await differences(session, SHORT) == []
            # Something to do again for the next one.
            session.add_all([decision(NOON), run(NOON + HOUR)])
            await session.commit()
            statement += 1

        assert statement > 30
        assert await differences(session) == []


def counted(number: int, then: Callable[[], None]) -> Callable[[object], None]:
    """Return what does `then` when it is called for the time of that number."""
    calls = count(1)

    def call(_: object) -> None:
        if next(calls) == number:
            then()

    return call


async def test_a_cancelled_fold_leaves_nothing_wrong(agentobs_database: DatabaseSettings) -> None:
    rows = [decision(NOON + number * HOUR) for number in range(150)]
    await store_rows(agentobs_database, *rows)
    async with folder(agentobs_database) as store:
        # The first commit notes partitions, two more find nothing, one closes, the next one folds.
        fifth = asyncio.Event()
        event.listen(store.connection.sync_engine, "commit", counted(5, fifth.set))
        task = asyncio.create_task(bring_up_to_date(store, ROUTING, LATER, patience_seconds=0))
        await fifth.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
        assert await fold(agentobs_database)
        assert await differences(session) == []


async def test_folders_that_race_get_in_nobodys_way(agentobs_database: DatabaseSettings) -> None:
    rows = [decision(NOON + number * HOUR) for number in range(220)]
    await store_rows(agentobs_database, *rows)

    async def folded() -> bool:
        try:
            return await fold(agentobs_database, LATER, [ROUTING])
        except ConflictError:
            return False

    await asyncio.gather(*(folded() for _ in range(4)))

    async with opened(agentobs_database) as session:
        assert await differences(session) == []
        assert await fold(agentobs_database, LATER)
        assert await differences(session) == []


class Storm:
    """Writers of all kinds, a folder and a reader, each by chance, and all at once."""

    def __init__(self, settings: DatabaseSettings, seed: int) -> None:
        self.settings = settings
        self.random = random.Random(seed)  # noqa: S311 (no secret)
        self.now = NOON
        self.compared = 0
        self.found: list[str] = []

    async def write(self, turns: int) -> None:
        for _ in range(turns):
            level = self.random.choice(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
            try:
                async with opened(self.settings, isolation_level=level) as session:
                    await self._transaction(session)
            except AgentobsError:
                # Two that change one row: the later one gives up, as the host's would.
                continue

    async def _transaction(self, session: Any) -> None:
        await session.execute(text("SELECT count(*) FROM router_performance_metrics"))
        for _ in range(self.random.randint(1, 4)):
            await self._change(session)
            await asyncio.sleep(0)
        if self.random.random() < 0.8:
            await session.commit()
        else:
            await session.rollback()

    async def _change(self, session: Any) -> None:
        instant = self.now + self.random.uniform(-30, 3) * HOUR
        what = self.random.choice(["add", "add", "add", "savepoint", "update", "delete", "move"])
        near = RouterPerformanceMetric.measured_at.between(instant - HOUR, instant)
        if what == "add":
            session.add_all([decision(instant, 7), run(instant, 7)])
            await session.flush()
        elif what == "savepoint":
            savepoint = await session.begin_nested()
            session.add(decision(instant, 9))
            await session.flush()
            await (savepoint.rollback() if self.random.random() < 0.5 else savepoint.commit())
        elif what == "update":
            values = {"total_routing_time_us": self.random.randint(0, 10**6)}
            await session.execute(update(RouterPerformanceMetric).where(near).values(values))
        elif what == "delete":
            await session.execute(delete(RouterPerformanceMetric).where(near))
        else:
            await session.execute(MOVE, {"id": uuid7_at(instant), "there": instant})

    async def fold(self, turns: int) -> None:
        for _ in range(turns):
            self.now += self.random.choice([0, 0, 1, 5]) * HOUR
            try:
                await fold(self.settings, self.now)
            except ConflictError:
                continue

    async def compare(self, turns: int) -> None:
        async with opened(self.settings) as session:
            for _ in range(turns):
                self.found += await differences(session, EVERYTHING)
                self.compared += 1


async def test_answers_are_right_in_a_storm_of_writers_and_folders(
    agentobs_database: DatabaseSettings,
) -> None:
    storm = Storm(agentobs_database, SEED)
    rows = [decision(NOON - DAY + number * 31 * MINUTE) for number in range(60)]
    await store_rows(agentobs_database, *rows)

    await asyncio.gather(
        *(storm.write(25) for _ in range(3)), storm.fold(12), storm.fold(12), storm.compare(25)
    )

    assert storm.found == []
    assert storm.compared == 25
    assert await fold(agentobs_database)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []
