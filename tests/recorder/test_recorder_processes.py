"""Several processes that record at once, and processes that fork."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import text
from support.embedded import wait_until
from support.recorder_hosts import Host, host_of
from support.recorder_program import FORKS, RECORDS
from support.recorders import PATIENCE, connected, decisions, events, strict_recorder
from support.shell import environment

from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.spool import describe_spools

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs import DatabaseSettings, Recorder

CHANGES_SCHEMA = True

PROGRAM = Path(__file__).parents[1] / "support" / "recorder_program.py"
PROCESSES = 8
SECONDS = 6.0
# So many rows that the server does not read a table whole.
ENOUGH = 2_000
KEY_BYTES = len(f"{UUID(int=0)}\n")


async def test_eight_processes_that_judge_what_the_others_decide_never_lock_each_other_out(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(host_of(record_beside_others, agentobs_database, tmp_path))
            for _ in range(PROCESSES)
        ]
        with ThreadPoolExecutor(PROCESSES) as pool:
            # All are read at once: who tells too much waits for a reader.
            ends = [pool.submit(host.end) for host in hosts]
            wait_until(lambda: _decided(hosts) > ENOUGH or all(each.done() for each in ends))
            # From here on the server plans by what is in the tables, as it does in time.
            await _analyze(agentobs_database)
            for each in ends:
                each.result()

    metrics = {row["id"]: row for row in await decisions(agentobs_database)}
    runs = {row["id"]: row["success"] for row in await events(agentobs_database)}
    assert metrics.keys() == {key for host in hosts for key in host.accepted.decisions}
    assert runs == {key: True for host in hosts for key in host.accepted.runs}
    judged = {key for host in hosts for key in host.accepted.qualities}
    assert judged - metrics.keys() == set()
    assert all(metrics[key]["actual_success"] for key in judged)
    assert list(read_dead_letters(tmp_path / "dead-letters")) == []
    assert await _deadlocks(agentobs_database) == 0


@pytest.mark.parametrize("delivery", ["drop", "spool"])
@pytest.mark.parametrize(
    ("program", "agents"),
    [
        ("forks_after_the_start", {"before": 1, "child": 1, "after": 1, "end": 1}),
        ("forks_with_multiprocessing", {"before": 1, "child": 3, "after": 1, "end": 1}),
        ("forks_workers_that_go_on_after_it_was_loaded", {"child": 3}),
    ],
)
async def test_a_child_that_is_forked_writes_what_is_its_own_and_nothing_of_its_parent(
    agentobs_database: DatabaseSettings,
    tmp_path: Path,
    delivery: str,
    program: str,
    agents: dict[str, int],
) -> None:
    ended = _run(program, agentobs_database, tmp_path, delivery)

    assert (ended.returncode, ended.stderr) == (0, "")
    found = Counter(row["selected_agent"] for row in await decisions(agentobs_database))
    assert found == {f"agent-{name}": RECORDS * number for name, number in agents.items()}
    assert describe_spools(tmp_path / "spools") == []


@pytest.mark.parametrize("delivery", ["drop", "spool"])
async def test_a_fork_while_other_threads_hold_the_locks_of_the_recorder_does_not_hang(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    ended = _run("forks_while_threads_record", agentobs_database, tmp_path, delivery)

    # Threads that never pause may fill the buffer where the machine has other work.
    full = {"the buffer is full: records are dropped, and counted"} if delivery == "drop" else set()
    assert set(ended.stderr.splitlines()) <= full
    assert ended.returncode == 0
    found = Counter(row["selected_agent"] for row in await decisions(agentobs_database))
    assert found == {"agent-child": FORKS * RECORDS, "agent-thread": int(ended.stdout)}


async def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_records(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, PROGRAM, "leaves_a_child_behind"],
        env=_variables(agentobs_database, tmp_path, "spool"),
        stdin=subprocess.PIPE,
    ) as parent:
        assert parent.wait(60) == -signal.SIGKILL
        with strict_recorder(agentobs_database, tmp_path, delivery="spool"):
            # Its own one is left.
            wait_until(lambda: len(list((tmp_path / "spools").iterdir())) == 1)

    assert len(await decisions(agentobs_database)) == RECORDS


async def test_two_processes_that_take_over_at_once_share_what_is_left(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorded = [_left_behind(agentobs_database, tmp_path) for _ in range(6)]
    left = list((tmp_path / "spools").iterdir())
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(host_of(take_over_all, agentobs_database, tmp_path, left))
            for _ in range(3)
        ]
        for host in hosts:
            host.end()

    rows = [row["id"] for row in await decisions(agentobs_database)]
    assert rows == sorted(key for keys in recorded for key in keys)
    assert list(read_dead_letters(tmp_path / "dead-letters")) == []


def record_beside_others(
    tell: Callable[..., None], database: DatabaseSettings, folder: Path
) -> None:
    """Record for some time, also what came of decisions that other processes made."""
    shared = os.open(folder / "decisions", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with strict_recorder(database, folder, delivery="block", buffer_rows=1_000) as recorder:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            decision = _record_nested(recorder, tell)
            os.write(shared, f"{decision}\n".encode())
            for _ in range(3):
                key = _any_key(shared)
                recorder.outcome(key, success=True, quality_score=0.5)
                tell("outcome", key, 0.5)
        # The rows of others come; who closes does not wait for them.
        recorder.barrier(PATIENCE)
        assert recorder.statistics().retried == 0, "no statement failed"
    os.close(shared)


def take_over_all(
    _: Callable[..., None], database: DatabaseSettings, folder: Path, left: list[Path]
) -> None:
    with strict_recorder(database, folder, delivery="spool"):
        wait_until(lambda: not any(each.exists() for each in left))


def _record_nested(recorder: Recorder, tell: Callable[..., None]) -> UUID:
    decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
    tell("decision", decision.id)
    with recorder.transformation(target_agent="agent-outer", decision=decision) as outer:
        with recorder.transformation(target_agent="agent-inner") as inner:
            pass
        tell("run", inner.id)
    tell("run", outer.id)
    return decision.id


def _any_key(shared: int) -> UUID:
    number = os.fstat(shared).st_size // KEY_BYTES
    line = os.pread(shared, KEY_BYTES, KEY_BYTES * secrets.randbelow(number))
    return UUID(line.decode().strip())


def _left_behind(database: DatabaseSettings, folder: Path) -> list[UUID]:
    """Leave records in a spool, as a process does whose database is away."""
    recorder = strict_recorder(database, folder, delivery="spool", flush_interval=3600.0).start()
    keys = [
        recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy").id
        for _ in range(300)
    ]
    recorder.close(timeout=0.0)
    return keys


def _decided(hosts: list[Host]) -> int:
    return sum(len(host.accepted.decisions) for host in hosts)


async def _analyze(database: DatabaseSettings) -> None:
    async with connected(database) as connection:
        await connection.execute(text("ANALYZE"))
        await connection.commit()


async def _deadlocks(database: DatabaseSettings) -> int:
    async with connected(database) as connection:
        found = await connection.scalar(
            text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )
    assert isinstance(found, int)
    return found


def _run(
    program: str, database: DatabaseSettings, folder: Path, delivery: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, program],
        capture_output=True,
        check=False,
        env=_variables(database, folder, delivery),
        text=True,
        timeout=60,
    )


def _variables(database: DatabaseSettings, folder: Path, delivery: str) -> dict[str, str]:
    return environment(
        database, AGENTOBS_RECORDER_FOLDER=str(folder), AGENTOBS_RECORDER_DELIVERY=delivery
    )
