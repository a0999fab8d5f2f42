"""A database that goes and comes back while a service records."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text
from support.embedded import wait_until
from support.pools import eventually, onlooker
from support.private_server import private_server
from support.recorder_load import assert_stored, recording
from support.recorders import (
    PATIENCE,
    connected,
    decisions,
    events,
    stored_ids,
    strict_recorder,
)
from support.relay import relay

from agentobs import (
    DatabaseSettings,
    Recorder,
    RouterPerformanceMetric,
    migrations,
)
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.writing import writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID

    from support.pools import Onlooker
    from support.private_server import PrivateServer
    from support.relay import Relay

pytestmark = pytest.mark.usefixtures("quick_pauses")

CHANGES_SCHEMA = True

RESTARTS = 10
# How often a minute without a database is one attempt: the longest pause is 10 s.
ATTEMPTS_IN_A_MINUTE = 20
# More than a connection and its first flushes are messages.
CUTS = 40
DELIVERIES = ("drop", "block", "spool")
METRICS = "router_performance_metrics"
EVENTS = "agent_transformation_events"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as running:
        settings = DatabaseSettings.model_construct(database_url=SecretStr(running.url()))
        asyncio.run(migrations.upgrade(settings=settings))
        yield running


@pytest.fixture
def database(server: PrivateServer) -> DatabaseSettings:
    server.sql(f"TRUNCATE {METRICS}, {EVENTS}")
    return DatabaseSettings.model_construct(database_url=SecretStr(server.url()))


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an outage be as many attempts as a long one, in a shorter time."""
    monkeypatch.setattr(writer, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(writer, "_LONGEST_PAUSE", 0.05)


@pytest_asyncio.fixture
async def wire(agentobs_database: DatabaseSettings) -> AsyncIterator[Relay]:
    async with relay(agentobs_database) as passing:
        yield passing


@pytest_asyncio.fixture
async def eye(agentobs_database: DatabaseSettings) -> AsyncIterator[Onlooker]:
    async with onlooker(agentobs_database) as found:
        yield found


async def test_a_server_that_crashes_ten_times_under_load_costs_no_row(
    server: PrivateServer, database: DatabaseSettings, tmp_path: Path
) -> None:
    async with (
        recording(database, tmp_path / "drop", "drop") as dropping,
        recording(database, tmp_path / "block", "block") as blocking,
        recording(database, tmp_path / "spool", "spool") as spooling,
    ):
        loads = (dropping, blocking, spooling)
        for _ in range(RESTARTS):
            os.kill(server.pid, signal.SIGQUIT)
            server.restart()
            for load in loads:
                await load.go_on()

    await assert_stored(database, *loads)


async def test_an_outage_of_many_attempts_leaves_memory_bounded_and_order_kept(
    server: PrivateServer, database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(
        database, tmp_path, delivery="spool", buffer_rows=200, flush_rows=100
    ).start()
    server.stop()
    try:
        recorded = [_decide(recorder) for _ in range(3_000)]
        wait_until(lambda: recorder.statistics().retried >= ATTEMPTS_IN_A_MINUTE)
        during = recorder.statistics()
    finally:
        server.start()
    report = recorder.close()

    assert during.buffer_rows <= 200
    assert during.pending == during.accepted["decision"] == 3_000
    assert not during.dropped
    assert report.is_complete
    async with connected(database) as connection:
        rows = await connection.execute(
            text(f"SELECT id, xmin::text::bigint FROM {METRICS} ORDER BY id")
        )
        keys, transactions = zip(*rows, strict=True)
    assert list(keys) == recorded
    assert list(transactions) == sorted(transactions)


async def test_a_full_buffer_drops_in_an_outage_and_says_exactly_what(
    server: PrivateServer, database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(database, tmp_path, delivery="drop", buffer_rows=100).start()
    server.stop()
    try:
        for _ in range(1_000):
            _decide(recorder)
    finally:
        server.start()
    recorder.close()

    statistics = recorder.statistics()
    written = len(await decisions(database))
    assert 100 <= written < 1_000
    assert statistics.written["decision"] == statistics.accepted["decision"] == written
    assert statistics.dropped["decision"] == 1_000 - written
    assert statistics.completeness == pytest.approx(written / 1_000)


async def test_children_whose_parents_are_in_the_spool_alone_are_stored_with_them(
    server: PrivateServer, database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(
        database, tmp_path, delivery="spool", buffer_rows=10, flush_rows=5
    ).start()
    server.stop()
    try:
        for _ in range(20):
            with (
                recorder.transformation(target_agent="agent-outer"),
                recorder.transformation(target_agent="agent-middle"),
            ):
                for _ in range(5):
                    with recorder.transformation(target_agent="agent-inner"):
                        pass
    finally:
        server.start()
    report = recorder.close()

    rows = {row["id"]: row for row in await events(database)}
    assert report.is_complete
    assert recorder.statistics().orphaned == 0
    assert len(rows) == 20 * 7
    assert all(row["success"] for row in rows.values())
    agents = [
        (row["target_agent"], rows[row["parent_event_id"]]["target_agent"])
        for row in rows.values()
        if row["parent_event_id"]
    ]
    assert set(agents) == {("agent-inner", "agent-middle"), ("agent-middle", "agent-outer")}
    assert len(agents) == 20 * 6


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_a_network_that_breaks_wherever_it_can_costs_no_row(
    agentobs_database: DatabaseSettings,
    wire: Relay,
    tmp_path: Path,
    delivery: str,
) -> None:
    async with recording(wire.settings, tmp_path, delivery) as load:
        cuts = _Cuts(wire)
        await eventually(cuts.are_enough)
        wire.on_passage = lambda: None
        await load.go_on()

    await assert_stored(agentobs_database, load)


async def test_a_commit_whose_answer_is_lost_stores_its_batch_once(
    agentobs_database: DatabaseSettings,
    wire: Relay,
    tmp_path: Path,
    eye: Onlooker,
) -> None:
    await eye.execute(
        "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$"
    )
    # It waits within COMMIT, of which the answer is lost then.
    await eye.execute(
        f"CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON {METRICS}"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION waits()"
    )
    await eye.execute("SELECT pg_advisory_lock(1)")
    recorder = strict_recorder(wire.settings, tmp_path, flush_interval=3600.0).start()
    recorded = [_decide(recorder) for _ in range(100)]
    recorder.outcome(recorded[-1], success=True)
    done = asyncio.create_task(recorder.abarrier(PATIENCE))
    await eventually(lambda: eye.scalar("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    wire.hold_up()
    await eye.execute("SELECT pg_advisory_unlock(1)")
    await eventually(lambda: eye.scalar(f"SELECT count(*) FROM {METRICS}"))
    await wire.close()
    wire.go_on()
    await wire.open()
    await done
    await recorder.aclose()

    statistics = recorder.statistics()
    assert statistics.retried
    assert statistics.written == {"decision": 100, "outcome": 1}
    rows = {row["id"]: row["actual_success"] for row in await decisions(agentobs_database)}
    assert list(rows) == recorded
    assert rows[recorded[-1]] is True
    assert list(read_dead_letters(tmp_path / "dead-letters")) == []


async def test_a_connection_that_is_terminated_again_and_again_costs_no_row(
    agentobs_database: DatabaseSettings, tmp_path: Path, eye: Onlooker
) -> None:
    async with recording(agentobs_database, tmp_path) as load:
        for _ in range(20):
            await eye.scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE '% recorder'"
            )
            await load.go_on(10)

    await assert_stored(agentobs_database, load)


@pytest.mark.parametrize(
    "change",
    [
        f"ALTER TABLE {METRICS} ADD COLUMN extra integer DEFAULT 7",
        f"ALTER TABLE {METRICS} ALTER COLUMN cache_key TYPE text",
        f"ALTER TABLE {EVENTS} ADD COLUMN extra text",
    ],
)
async def test_a_migration_under_load_costs_no_row_for_the_plans_that_it_made_stale(
    agentobs_database: DatabaseSettings,
    tmp_path: Path,
    eye: Onlooker,
    change: str,
) -> None:
    async with recording(agentobs_database, tmp_path, flush_interval=0.01) as load:
        await eye.execute("SET lock_timeout = '10s'")
        await eye.execute(change)
        await load.go_on()

    await assert_stored(agentobs_database, load)


async def test_rows_wait_for_tables_that_come_later(
    agentobs_empty_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_empty_database, tmp_path) as recorder:
        recorded = {_decide(recorder) for _ in range(50)}
        wait_until(lambda: recorder.statistics().retried >= 3)
        await migrations.upgrade(settings=agentobs_empty_database)

    assert await stored_ids(agentobs_empty_database, RouterPerformanceMetric) == recorded


async def test_a_run_whose_start_went_with_its_table_is_stored_whole_at_its_end(
    agentobs_database: DatabaseSettings, tmp_path: Path, eye: Onlooker
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path, announce_after=0.0) as recorder,
        recorder.transformation(target_agent="agent-debug") as run,
    ):
        await eventually(lambda: eye.scalar(f"SELECT count(*) FROM {EVENTS}"))
        await eye.execute(f"TRUNCATE {EVENTS}")
    (row,) = await events(agentobs_database)

    assert (row["id"], row["target_agent"], row["success"]) == (run.id, "agent-debug", True)
    assert list(read_dead_letters(tmp_path / "dead-letters")) == []


async def test_a_database_without_room_gets_the_rows_when_there_is_some(
    agentobs_database: DatabaseSettings, tmp_path: Path, eye: Onlooker
) -> None:
    await eye.execute(
        "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'no space left on device' USING ERRCODE = '53100'; END $$"
    )
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        await eye.execute(
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {METRICS}"
            " FOR EACH STATEMENT EXECUTE FUNCTION is_full()"
        )
        recorded = {_decide(recorder) for _ in range(50)}
        wait_until(lambda: recorder.statistics().retried >= 3)
        assert not recorder.statistics().dead_lettered
        await eye.execute(f"DROP TRIGGER full_disk ON {METRICS}")

    assert await stored_ids(agentobs_database, RouterPerformanceMetric) == recorded


class _Cuts:
    """Breaks the connection that passes something on, each time a little later."""

    def __init__(self, wire: Relay) -> None:
        self.number = self._passages = 0
        wire.on_passage = self._count

    async def are_enough(self) -> bool:
        return self.number >= CUTS

    def _count(self) -> None:
        self._passages += 1
        if self._passages > self.number:
            self.number += 1
            self._passages = 0
            raise ConnectionResetError


def _decide(recorder: Recorder) -> UUID:
    return recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy").id
