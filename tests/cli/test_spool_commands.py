from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from support.recorders import decisions, strict_recorder
from support.shell import agentobs, environment

from agentobs.recorder.running import target_of

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


IS_WRITTEN = """
import os, sys, time
from agentobs import Recorder
recorder = Recorder(delivery="spool", folder=sys.argv[1], flush_interval=0.01)
recorder.routing_decision(selected_agent="agent")
while recorder.statistics().spool_bytes or not recorder.statistics().written:
    time.sleep(0.01)
os._exit(1)
"""


def run_and_die(program: str, database: DatabaseSettings, folder: Path, **extra: str) -> None:
    env = environment(database, **extra)
    subprocess.run([sys.executable, "-c", program, str(folder)], env=env, check=False)


def leave_a_spool(database: DatabaseSettings, folder: Path, **extra: str) -> None:
    run_and_die(DIES, database, folder, **extra)


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


def test_the_spool_of_another_database_is_left_alone_and_named(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    leave_a_spool(agentobs_database, tmp_path)
    elsewhere = {"AGENTOBS_SCHEMA": "elsewhere"}

    written = agentobs(
        "spool", "replay", "--folder", str(tmp_path), settings=agentobs_database, **elsewhere
    )
    shown = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)

    assert written.stdout == "replayed: 0 records\n"
    assert written.returncode == 1
    target = target_of(agentobs_database)
    assert f"left: 1 spool of another database, {target} " in written.stderr
    assert f"--from '{target}'" in written.stderr
    assert "is gone" in shown.stdout


def test_a_spool_that_was_replayed_and_not_removed_is_nothing_that_is_left(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    settings = {"AGENTOBS_SCHEMA": "elsewhere"}
    run_and_die(IS_WRITTEN, agentobs_database, tmp_path)

    written = agentobs(
        "spool", "replay", "--folder", str(tmp_path), settings=agentobs_database, **settings
    )

    assert len(list((tmp_path / "spools").iterdir())) == 1
    assert (written.stderr, written.returncode) == ("", 0)


def test_status_marks_the_spools_of_other_databases_where_it_knows_this_one(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    leave_a_spool(agentobs_database, tmp_path)
    arguments = ("spool", "status", "--folder", str(tmp_path))
    mark = "(not that of the environment)"

    assert mark not in agentobs(*arguments, settings=agentobs_database).stdout
    assert mark not in agentobs(*arguments).stdout
    other = agentobs(*arguments, settings=agentobs_database, AGENTOBS_SCHEMA="elsewhere")
    assert f"{target_of(agentobs_database)} {mark}" in other.stdout


async def test_what_was_recorded_for_another_database_comes_to_this_one_on_request(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    leave_a_spool(agentobs_database, tmp_path, AGENTOBS_SCHEMA="elsewhere")
    other = target_of(agentobs_database).removesuffix("public") + "elsewhere"
    arguments = ("spool", "replay", "--folder", str(tmp_path), "--from")

    wrong = agentobs(*arguments, "elsewhere", settings=agentobs_database)
    written = agentobs(*arguments, other, settings=agentobs_database)

    assert wrong.returncode == 2
    assert "elsewhere" in wrong.stderr
    assert (written.stdout, written.returncode) == ("replayed: 5 records\n", 0)
    assert len(await decisions(agentobs_database)) == 5
    assert list((tmp_path / "spools").iterdir()) == []


@pytest.mark.parametrize("command", ["status", "replay"])
def test_a_folder_that_is_not_there_is_an_error(
    command: str, agentobs_shared_database: DatabaseSettings, tmp_path: Path
) -> None:
    arguments = ("spool", command, "--folder", str(tmp_path / "typo"))

    done = agentobs(*arguments, settings=agentobs_shared_database)

    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "typo").exists()


def test_dead_letters_are_counted_by_their_reason(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, outcome_wait=0) as recorder:
        for _ in range(3):
            recorder.outcome(uuid4(), success=True)

    shown = agentobs("spool", "status", "--folder", str(tmp_path), settings=agentobs_database)

    assert "dead letters: 3 outcome: no such decision was ever stored" in shown.stdout
