"""Measure the sessions beside a raw asyncpg pool of the same size, on one server in one run.

Run with `make bench`. Each line is the same work done in turns: by us, by the floor and, for what
a stock SQLAlchemy engine can do, by that with the same models. Ratios are medians over the rounds,
times are medians in microseconds. The floor of the three reads is a raw transaction.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import orjson
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from agentobs import AgentTransformationEvent, Database, DatabaseSettings, migrations
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from agentobs.embedded import EmbeddedServer

Work = Callable[[], Awaitable[object]]

ROUNDS = 15
TASKS, CHECK_OUTS = 12, 60
MANY = 1000
# As ours is set up.
POOL: dict[str, Any] = {"min_size": 5, "max_size": 20, "timeout": 60, "command_timeout": 60}
EVENT = AgentTransformationEvent
COLUMNS = [column.name for column in EVENT.__table__.columns]
RAW_SELECT = f"SELECT {', '.join(COLUMNS)} FROM agent_transformation_events WHERE id = $1"  # noqa: S608
# An event as services write them when it is over.
CONTEXT = {
    "task": "add an endpoint that refunds an order",
    "files": [f"src/orders/{name}.py" for name in ("models", "routes", "refunds", "tests")],
    "history": [{"role": "user", "text": "refunds must be idempotent"}] * 3,
    "limits": {"tokens": 120_000, "seconds": 90.5, "retries": None},
}
VALUES: dict[str, Any] = {
    "event_type": "transformation_complete",
    "source_agent": "agent-workflow-coordinator",
    "target_agent": "agent-api-designer",
    "transformation_reason": "the request names an endpoint",
    "context_keys": list(CONTEXT),
    "context_size_bytes": 512,
    "user_request": "Add an endpoint that refunds an order, with tests",
    "routing_confidence": Decimal("0.8625"),
    "routing_strategy": "fuzzy_match",
    "transformation_duration_ms": 41,
    "initialization_duration_ms": 17,
    "total_execution_duration_ms": 12_840,
    "success": True,
    "quality_score": Decimal("0.9500"),
    "started_at": datetime(2026, 11, 25, 12, 0, tzinfo=UTC),
    "completed_at": datetime(2026, 11, 25, 12, 0, 12, 840_000, tzinfo=UTC),
}
RAW_NAMES = ("id", "correlation_id", "session_id", "context_snapshot", *VALUES)
RAW_INSERT = (
    f"INSERT INTO agent_transformation_events ({', '.join(RAW_NAMES)}) "  # noqa: S608
    f"VALUES ({', '.join(f'${number + 1}' for number in range(len(RAW_NAMES)))})"
)


class Stock:
    """SQLAlchemy as it comes: what part of a ratio is its own."""

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://"),
            pool_size=20,
            max_overflow=0,
            connect_args={"timeout": 60, "command_timeout": 60},
        )
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)
        self.begin = self.session.begin
        self.connection = self.engine.connect


@dataclass(frozen=True)
class Contest:
    """The same work by each; `goal` is the highest ratio to the floor, `repeats` a round's."""

    name: str
    goal: float
    repeats: int
    ours: Work
    floor: Work
    stock: Work | None = None

    async def line(self) -> str:
        """Measure, and return a line of the report."""
        works = [self.ours, self.floor, *filter(None, [self.stock])]
        rounds = [[await _seconds(work, self.repeats) for work in works] for _ in range(ROUNDS)]
        ratio = statistics.median(times[0] / times[1] for times in rounds)
        ours, floor = (1e6 * statistics.median(times[side] for times in rounds) for side in (0, 1))
        verdict = "reached" if ratio <= self.goal else "MISSED"
        line = (
            f"{self.name:<28} {ratio:5.2f} x (goal <= {self.goal:.1f} x: {verdict})   "
            f"{ours:8.0f} us, floor {floor:8.0f} us"
        )
        if self.stock is None:
            return line
        own = statistics.median(times[2] / times[1] for times in rounds)
        return f"{line}, stock SQLAlchemy {own:5.2f} x"


def main() -> None:
    """Measure on a fresh embedded server with its default, durable settings."""
    with fresh_server() as server:
        print(f"{environment(server)}; medians of {ROUNDS} rounds")
        asyncio.run(_measure(server))


async def _measure(server: EmbeddedServer) -> None:
    settings = DatabaseSettings(database_url=SecretStr(server.url))
    await migrations.upgrade(settings=settings)
    pool = await asyncpg.create_pool(server.url, **POOL)
    async with Database(settings) as db:
        stock = Stock(server.url)
        for contest in await _contests(db, pool, stock):
            print(await contest.line(), flush=True)
        await stock.engine.dispose()
    await pool.close()
    print(await _crowd(settings))
    print(await _start(settings, server.url))


async def _contests(db: Database, pool: Any, stock: Stock) -> list[Contest]:
    key = await _stored_event(db)
    raw = _raw_read(pool, key)
    check_out, insert, inserts = _raw_check_out(pool), _raw_insert(pool), _raw_inserts(pool)
    return [
        Contest("check-out + return", 1.0, 300, _check_out(db), check_out, _check_out(stock)),
        Contest("health", 2.0, 150, db.health, _raw_health(pool)),
        Contest("ORM select by id", 2.2, 100, _orm_read(db, key), raw, _orm_read(stock, key)),
        Contest("Core select by id", 1.9, 100, _core_read(db, key), raw, _core_read(stock, key)),
        Contest("read session in autocommit", 1.8, 100, _read(db, key), raw),
        Contest("one-row ORM insert", 2.7, 60, _orm_insert(db), insert, _orm_insert(stock)),
        Contest("1,000 rows by the ORM", 1.8, 2, _orm_inserts(db), inserts, _orm_inserts(stock)),
    ]


async def _seconds(work: Work, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        await work()
    return (time.perf_counter() - began) / repeats


def _new_event() -> AgentTransformationEvent:
    return EVENT(
        correlation_id=uuid4(), session_id=uuid4(), context_snapshot=dict(CONTEXT), **VALUES
    )


def _new_row() -> tuple[Any, ...]:
    return uuid4(), uuid4(), uuid4(), orjson.dumps(CONTEXT).decode(), *VALUES.values()


async def _stored_event(db: Database) -> UUID:
    event = _new_event()
    async with db.begin() as session:
        session.add(event)
    return event.id


def _check_out(db: Database | Stock) -> Work:
    async def work() -> None:
        async with db.connection():
            pass

    return work


def _raw_check_out(pool: Any) -> Work:
    async def work() -> None:
        async with pool.acquire():
            pass

    return work


def _raw_health(pool: Any) -> Work:
    async def work() -> None:
        async with pool.acquire() as connection:
            await connection.fetchval("SELECT 1")

    return work


def _orm_read(db: Database | Stock, key: UUID) -> Work:
    async def work() -> None:
        async with db.session() as session:
            await session.get_one(EVENT, key)

    return work


def _core_read(db: Database | Stock, key: UUID) -> Work:
    statement = select(EVENT.__table__).where(EVENT.id == key)

    async def work() -> None:
        async with db.connection() as connection:
            (await connection.execute(statement)).one()

    return work


def _read(db: Database, key: UUID) -> Work:
    async def work() -> None:
        async with db.read_session(autocommit=True) as session:
            await session.get_one(EVENT, key)

    return work


def _raw_read(pool: Any, key: UUID) -> Work:
    async def work() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(RAW_SELECT, key)

    return work


def _orm_insert(db: Database | Stock) -> Work:
    async def work() -> None:
        async with db.begin() as session:
            session.add(_new_event())

    return work


def _raw_insert(pool: Any) -> Work:
    async def work() -> None:
        async with pool.acquire() as connection:
            await connection.execute(RAW_INSERT, *_new_row())

    return work


def _orm_inserts(db: Database | Stock) -> Work:
    async def work() -> None:
        async with db.begin() as session:
            session.add_all([_new_event() for _ in range(MANY)])

    return work


def _raw_inserts(pool: Any) -> Work:
    async def work() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.executemany(RAW_INSERT, [_new_row() for _ in range(MANY)])

    return work


async def _crowd(settings: DatabaseSettings) -> str:
    """Let many tasks use one pool, each check-out for a statement."""

    async def work(db: Database) -> None:
        for _ in range(CHECK_OUTS):
            async with db.connection() as connection:
                await connection.execute(text("SELECT 1"))

    async with Database(settings) as db:
        await asyncio.gather(*(work(db) for _ in range(TASKS)))
        stats = db.pool_stats()
    p95 = stats.acquisition_p95_ms or 0.0
    return (
        f"{TASKS} tasks x {CHECK_OUTS} check-outs opened {stats.opened} connections "
        f"(goal <= 20: {'reached' if stats.opened <= 20 else 'MISSED'}), "  # noqa: PLR2004
        f"acquisition p95 {p95:.3f} ms (goal < 1 ms: {'reached' if p95 < 1 else 'MISSED'})"
    )


async def _start(settings: DatabaseSettings, url: str) -> str:
    ours, floor = [], []
    for _ in range(ROUNDS):
        db = Database(settings)
        ours.append(await _seconds(db.start, 1) * 1000)
        await db.stop()
        began = time.perf_counter()
        pool = await asyncpg.create_pool(url, **POOL)
        floor.append((time.perf_counter() - began) * 1000)
        await pool.close()
    ms = statistics.median(ours)
    verdict = "reached" if max(ours) < 300 else "MISSED"  # noqa: PLR2004
    return (
        f"start with 5 connections {ms:.0f} ms, slowest {max(ours):.0f} ms (goal < 300 ms: "
        f"{verdict}), asyncpg's pool {statistics.median(floor):.0f} ms"
    )


if __name__ == "__main__":
    main()
