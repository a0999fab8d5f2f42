"""Hosts that are killed while they record: what was accepted is stored by a successor."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from uuid import uuid4

from support.embedded import wait_until
from support.recorder_hosts import Accepted, host_of, record_for_ever
from support.recorders import decisions, events, strict_recorder

from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.spool import describe_spools

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

CHANGES_SCHEMA = True

KILLS = 10
# Some of them before the first flush, some in the middle of later ones.
MOST_LINES = 1_500


async def test_what_a_killed_host_had_accepted_is_stored_by_the_next_one(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    for number in range(KILLS):
        folder = tmp_path / str(number)
        accepted = _recorded_until_killed(agentobs_database, folder)
        _take_over(agentobs_database, folder)

        await _assert_stored(agentobs_database, folder, [accepted])


async def test_hosts_that_are_killed_while_they_take_over_lose_nothing_of_those_before(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    killed = [_recorded_until_killed(agentobs_database, tmp_path) for _ in range(KILLS)]
    _take_over(agentobs_database, tmp_path)

    await _assert_stored(agentobs_database, tmp_path, killed)


async def test_a_row_of_a_dead_process_that_is_refused_does_not_hold_up_the_others(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    dead = strict_recorder(agentobs_database, tmp_path, delivery="spool", flush_interval=3600.0)
    dead.start()
    for number in range(9):
        unknown = uuid4() if number == 4 else None
        with dead.transformation(target_agent="agent-debug", agent_definition_id=unknown) as run:
            decision = dead.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
        if unknown:
            refused = run.id
        dead.outcome(decision, success=True)
    dead.close(timeout=0.0)
    _take_over(agentobs_database, tmp_path)

    runs = await events(agentobs_database)
    (letter,) = read_dead_letters(tmp_path / "dead-letters")
    assert (letter["id"], letter["sqlstate"]) == (str(refused), "23503")
    assert len(runs) == 8
    assert [row["actual_success"] for row in await decisions(agentobs_database)] == [True] * 9


def _recorded_until_killed(database: DatabaseSettings, folder: Path) -> Accepted:
    with host_of(record_for_ever, database, folder) as host:
        host.read(1 + secrets.randbelow(MOST_LINES))
        host.kill()
    return host.accepted


def _take_over(database: DatabaseSettings, folder: Path) -> None:
    with strict_recorder(database, folder, delivery="spool"):
        # Its own one is left.
        wait_until(lambda: len(list((folder / "spools").iterdir())) == 1)
    assert describe_spools(folder / "spools") == []


async def _assert_stored(database: DatabaseSettings, folder: Path, killed: list[Accepted]) -> None:
    metrics = {row["id"]: row for row in await decisions(database)}
    runs = {row["id"]: row for row in await events(database)}
    for accepted in killed:
        assert accepted.decisions <= metrics.keys()
        assert accepted.runs <= {key for key, row in runs.items() if row["success"]}
        for key, quality in accepted.qualities.items():
            assert float(metrics[key]["actual_quality_score"]) == quality
    assert list(read_dead_letters(folder / "dead-letters")) == []
