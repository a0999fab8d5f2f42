from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matrix.releases import VERSIONS
from support.embedded import processes_of, wait_until
from support.shell import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
NEWEST = str(VERSIONS[-1])

# What it is told goes to a file: the tests read it while the command runs.
ASK = """
import asyncio, asyncpg, os, pathlib, sys

async def main():
    connection = await asyncpg.connect(os.environ["AGENTOBS_TEST_DATABASE_URL"])
    version = await connection.fetchval("SHOW server_version")
    folder = await connection.fetchval("SHOW data_directory")
    await connection.close()
    partial = pathlib.Path(sys.argv[1] + ".partial")
    partial.write_text(f"{version}\\n{folder}")
    partial.rename(sys.argv[1])

asyncio.run(main())
"""
STAY = "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('unwound')\n"


def matrix(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "matrix", *arguments],
        cwd=TESTS,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    return tmp_path / "answer"


@pytest.fixture
def staying(answer: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command that does not end by itself."""
    with matrix(NEWEST, "--", sys.executable, "-c", ASK + STAY, str(answer)) as process:
        wait_until(lambda: answer.exists() or process.poll() is not None)
        yield process
        process.kill()


def test_the_command_gets_a_server_of_the_version_which_is_gone_afterwards(answer: Path) -> None:
    code, output, errors = finished(matrix(NEWEST, "--", sys.executable, "-c", ASK, str(answer)))
    assert code == 0, errors
    assert output.endswith(f"PostgreSQL {NEWEST}: passed\n")
    version, folder = answer.read_text().splitlines()
    assert version.split(".")[0] == NEWEST
    assert not Path(folder).exists()
    assert not processes_of(Path(folder))


def test_the_version_on_which_the_command_failed_is_named() -> None:
    code, output, _ = finished(matrix(NEWEST, "--", sys.executable, "-c", "exit(3)"))
    assert code == 1
    assert output.endswith(f"PostgreSQL {NEWEST}: failed (exit code 3)\n")


def test_an_ended_run_ends_the_command_and_then_the_server(
    answer: Path, staying: subprocess.Popen[str]
) -> None:
    staying.send_signal(signal.SIGTERM)
    code, output, errors = finished(staying)
    assert code == 128 + signal.SIGTERM, errors
    assert "unwound" in output
    _, folder = answer.read_text().splitlines()
    assert not processes_of(Path(folder))
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    "arguments",
    [(), ("13", "--", "true"), ("newest", "--", "true"), (NEWEST,), (NEWEST, "--"), ("--", "true")],
    ids=str,
)
def test_bad_arguments_start_nothing_and_are_told_how(arguments: tuple[str, ...]) -> None:
    code, output, errors = finished(matrix(*arguments))
    assert code == 1
    assert not output
    assert "usage: python -m matrix" in errors
