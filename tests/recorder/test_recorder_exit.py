"""Programs that end without a word to their recorder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.recorder_program import RECORDS
from support.recorders import decisions, events
from support.shell import environment

from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.folder import target_of
from agentobs.recorder.spool.spool import describe_spools, take_over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentobs import DatabaseSettings

PROGRAM = Path(__file__).parents[1] / "support" / "recorder_program.py"
PATIENCE_SECONDS = 60.0
DEAD = "postgresql://nobody@127.0.0.1:1/nowhere"


@pytest.fixture
def variables(agentobs_database: DatabaseSettings, tmp_path: Path) -> dict[str, str]:
    folder = str(tmp_path / "recorder")
    return environment(agentobs_database, AGENTOBS_RECORDER_FOLDER=folder)


@pytest.mark.parametrize(
    ("program", "code", "complaint"),
    [
        ("forgets_to_close", 0, ""),
        ("records_at_exit_only", 0, ""),
        ("leaves_by_sys_exit", 3, ""),
        ("leaves_by_an_exception", 1, "LookupError: this is how it ends\n"),
        ("asks_for_no_handlers", 0, ""),
    ],
)
async def test_a_program_that_ends_leaves_its_records_in_the_database_and_no_warning(
    agentobs_database: DatabaseSettings,
    variables: dict[str, str],
    program: str,
    code: int,
    complaint: str,
) -> None:
    ended = _run(program, variables)

    assert ended.returncode == code
    assert ended.stderr.endswith(complaint)
    assert complaint or not ended.stderr
    assert len(await decisions(agentobs_database)) == RECORDS


async def test_the_children_that_multiprocessing_starts_leave_theirs_too(
    agentobs_database: DatabaseSettings, variables: dict[str, str]
) -> None:
    ended = _run("ends_in_children", variables)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(await decisions(agentobs_database)) == 2 * RECORDS


async def test_a_run_that_an_exit_cuts_off_is_stored_as_a_failed_one(
    agentobs_database: DatabaseSettings, variables: dict[str, str]
) -> None:
    ended = _run("leaves_a_run_open", variables)

    assert (ended.returncode, ended.stderr) == (0, "")
    (run,) = await events(agentobs_database)
    assert (run["event_type"], run["error_type"]) == ("transformation_failed", "SystemExit")


async def test_a_thread_that_goes_on_does_not_keep_python_from_its_exit(
    agentobs_database: DatabaseSettings, variables: dict[str, str]
) -> None:
    ended = _run("leaves_another_thread_recording", variables)

    assert ended.returncode == 0
    agents = Counter(row["selected_agent"] for row in await decisions(agentobs_database))
    assert agents["agent-debug"] == RECORDS


def test_an_exit_without_a_database_is_bounded_and_says_where_the_records_are(
    tmp_path: Path,
) -> None:
    variables = environment(
        AGENTOBS_DATABASE_URL=DEAD,
        AGENTOBS_RECORDER_FOLDER=str(tmp_path),
        AGENTOBS_RECORDER_CLOSE_TIMEOUT="0.3",
    )

    ended = _run("forgets_to_close", variables)

    assert ended.returncode == 0
    assert f"closed and left: {RECORDS} decision" in ended.stderr
    assert str(tmp_path / "dead-letters") in ended.stderr
    assert len(list(read_dead_letters(tmp_path / "dead-letters"))) == RECORDS


def test_an_exit_without_a_database_leaves_the_records_in_the_spool(tmp_path: Path) -> None:
    variables = environment(
        AGENTOBS_DATABASE_URL=DEAD,
        AGENTOBS_RECORDER_FOLDER=str(tmp_path),
        AGENTOBS_RECORDER_CLOSE_TIMEOUT="0.3",
        AGENTOBS_RECORDER_DELIVERY="spool",
    )

    ended = _run("forgets_to_close", variables)

    assert ended.returncode == 0
    assert f"closed and left: {RECORDS} decision" in ended.stderr
    (spool,) = describe_spools(tmp_path / "spools")
    assert spool.bytes
    assert not spool.is_alive


def test_what_the_spool_has_no_room_for_is_not_safe_and_is_a_dead_letter_at_the_end(
    tmp_path: Path,
) -> None:
    variables = environment(
        AGENTOBS_DATABASE_URL=DEAD,
        AGENTOBS_RECORDER_FOLDER=str(tmp_path),
        AGENTOBS_RECORDER_CLOSE_TIMEOUT="0.3",
        AGENTOBS_RECORDER_DELIVERY="spool",
    )

    ended = _run("records_more_than_its_disk_takes", variables)

    assert ended.returncode == 0
    letters = len(list(read_dead_letters(tmp_path / "dead-letters")))
    assert ended.stdout == f"not safe {letters}\n"
    (path,) = (tmp_path / "spools").iterdir()
    (spool,) = take_over(tmp_path / "spools", target_of(path) or "")
    spooled = len(spool.read(spool.settled, RECORDS, 2**20))
    spool.close()
    assert 0 < spooled < spooled + letters == RECORDS


async def test_a_signal_that_ends_the_process_by_default_does_so_after_the_last_row(
    agentobs_database: DatabaseSettings, variables: dict[str, str]
) -> None:
    ended = _run_until_signal("closes_on_signals", variables)

    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, "")
    assert len(await decisions(agentobs_database)) == RECORDS


async def test_a_handler_of_the_host_comes_after_the_last_row(
    agentobs_database: DatabaseSettings, variables: dict[str, str]
) -> None:
    ended = _run_until_signal("chains_to_its_own_handler", variables)

    assert (ended.returncode, ended.stderr) == (5, "")
    assert ended.stdout == "SIGTERM True\n"
    assert len(await decisions(agentobs_database)) == RECORDS


async def test_a_signal_in_the_middle_of_a_record_leaves_none_that_was_accepted(
    agentobs_database: DatabaseSettings, variables: dict[str, str], tmp_path: Path
) -> None:
    ended = _run(
        "gets_a_signal_in_the_middle_of_a_record",
        variables | {"AGENTOBS_RECORDER_DELIVERY": "spool"},
    )

    assert ended.returncode == -signal.SIGTERM
    assert "closed and left" not in ended.stderr
    assert await decisions(agentobs_database)
    assert describe_spools(tmp_path / "recorder" / "spools") == []
    assert list(read_dead_letters(tmp_path / "recorder" / "dead-letters")) == []


async def test_a_signal_while_the_main_thread_records_leaves_none_that_was_accepted(
    variables: dict[str, str], tmp_path: Path
) -> None:
    ended = _run_until_signal("records_in_the_main_thread_until_a_signal", variables)

    assert ended.returncode == -signal.SIGTERM
    assert "closed and left" not in ended.stderr
    assert list(read_dead_letters(tmp_path / "recorder" / "dead-letters")) == []


def _run(program: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, program],
        capture_output=True,
        check=False,
        env=variables,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def _run_until_signal(
    program: str, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, program],
        env=variables,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        try:
            printed, complaint = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, printed, complaint)
