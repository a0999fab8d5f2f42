"""Measure `alembic upgrade head` and `downgrade base` beside psql that runs the same SQL.

Run with `make bench`. Goals: upgrade to 0003 below 2 s and downgrade below 1 s in the database.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs import migrations
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.embedded import EmbeddedServer

ROUNDS = 7
REPOSITORY = Path(__file__).resolve().parents[1]
GOALS = {"upgrade": 2.0, "downgrade": 1.0}
_MILLISECONDS = re.compile(r"^Time: (\d+\.\d+) ms", re.MULTILINE)
_SECONDS = re.compile(r"is now at \S+ \((\d+\.\d+) s\)")


@dataclass(frozen=True)
class Measure:
    """Medians in seconds; `psql` is the sum of its statements' times for the same SQL."""

    name: str
    in_database: float
    command: float
    psql: float

    def line(self) -> str:
        """Return the measure as a line of the report."""
        goal = GOALS[self.name]
        verdict = "reached" if self.in_database < goal else "MISSED"
        return (
            f"{self.name:<10} in the database {self.in_database:6.3f} s (goal < {goal:.0f} s: "
            f"{verdict})   command {self.command:6.3f} s   psql {self.psql:6.3f} s   "
            f"ratio in database / psql {self.in_database / self.psql:5.2f}"
        )


def main() -> None:
    """Measure on a fresh embedded server with its default, durable settings."""
    with fresh_server() as server:
        print(f"{environment(server)}; medians of {ROUNDS} rounds")
        for measure in _measure(server):
            print(measure.line())


def _measure(server: EmbeddedServer) -> list[Measure]:
    up, down = migrations.sql(), migrations.sql("head:base", downgrade=True)
    alembic_up, alembic_down, psql_up, psql_down = [], [], [], []
    for _ in range(ROUNDS):
        alembic_up.append(_alembic(server, "upgrade", "head"))
        alembic_down.append(_alembic(server, "downgrade", "base"))
        psql_up.append(_psql(server, up))
        psql_down.append(_psql(server, down))
    return [
        _median("upgrade", alembic_up, psql_up),
        _median("downgrade", alembic_down, psql_down),
    ]


def _median(name: str, alembic: list[tuple[float, float]], psql: list[float]) -> Measure:
    in_database = statistics.median(seconds for seconds, _ in alembic)
    command = statistics.median(seconds for _, seconds in alembic)
    return Measure(name, in_database, command, statistics.median(psql))


def _alembic(server: EmbeddedServer, *arguments: str) -> tuple[float, float]:
    """Run the command; return the seconds that its summary tells, and those it took in all."""
    variables = os.environ | {"AGENTOBS_DATABASE_URL": server.url}
    command = [str(Path(sys.executable).with_name("alembic")), *arguments]
    output, seconds = _timed(lambda: _run(command, variables))
    found = _SECONDS.search(output)
    if found is None:
        raise RuntimeError(f"no summary in the output of {' '.join(arguments)}: {output}")
    return float(found[1]), seconds


def _psql(server: EmbeddedServer, sql: str) -> float:
    """Run the SQL with psql; return the seconds that its statements took, by its own timing."""
    options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", server.url]
    command = [str(server.binary("psql")), *options]
    output = _run(command, dict(os.environ), f"\\timing on\n{sql}")
    return sum(float(found) for found in _MILLISECONDS.findall(output)) / 1000


def _run(command: list[str], variables: dict[str, str], text: str = "") -> str:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=variables,
        input=text,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout


def _timed(work: Callable[[], str]) -> tuple[str, float]:
    began = time.perf_counter()
    output = work()
    return output, time.perf_counter() - began


if __name__ == "__main__":
    main()
