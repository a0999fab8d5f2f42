from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

from support.recorders import decisions, strict_recorder
from support.shell import agentobs, environment

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

DIES = """
import os, sys
from agentobs import Recorder
recorder = Recorder(delivery="spool", folder=sys.argv[1], flush_interval=3600)
for number in range(5):
    recorder.routing_decision(selected_agent=f"agent-{number}")
os._exit(1)
"""


def leave_a_spool(database: DatabaseSettings, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", DIES, str(folder)], env=environment(database), check=False
    )


async def test_what_a_process_left_is_shown_and_written_on_request(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    leave_a_spool(agentobs_database, tmp_path)

    shown = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)
    written = agentobs("spool", "replay", "--folder", str(tmp_path), settings=agentobs_database)
    after = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)

    assert "is gone" in shown.stdout
    assert written.stdout == "replayed: 5 records\n"
    assert "no spools" in after.stdout
    agents = [row["selected_agent"] for row in await decisions(agentobs_database)]
    assert agents == [f"agent-{number}" for number in range(5)]


def test_the_spool_of_another_database_is_left_alone(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    leave_a_spool(agentobs_database, tmp_path)
    elsewhere = {"AGENTOBS_SCHEMA": "elsewhere"}

    written = agentobs(
        "spool", "replay", "--folder", str(tmp_path), settings=agentobs_database, **elsewhere
    )

    assert written.stdout == "replayed: 0 records\n"
    shown = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)
    assert "is gone" in shown.stdout


def test_dead_letters_are_counted_by_their_reason(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, outcome_wait=0) as recorder:
        for _ in range(3):
            recorder.outcome(uuid4(), success=True)

    shown = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)

    assert "dead letters: 3 outcome: no such decision was ever stored" in shown.stdout
