"""Run the commands of a console block, and compare what they print with what the page shows."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.shell import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

# Where the page has a database of the test's, the address of its reader does not replace it.
_GIVEN = frozenset({"AGENTOBS_DATABASE_URL", "AGENTOBS_MIGRATION_URL"})
_EXPORT = re.compile(r"export (\w+)=(.*)")
_SECONDS = 60


class DocumentationError(AssertionError):
    """A page promises what does not happen."""


@dataclass
class Step:
    """A command, and the lines that the page shows below it."""

    command: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Console:
    """A shell's folder and environment, and the status of its last command."""

    folder: Path
    environment: MutableMapping[str, str]
    status: int = 0

    def run(self, text: str) -> None:
        steps = list(parse(text))
        for number, step in enumerate(steps):
            output = self._output_of(step.command)
            require_output(step, output)
            asked = number + 1 < len(steps) and steps[number + 1].command == "echo $?"
            if self.status != 0 and not asked:
                raise DocumentationError(f"$ {step.command}\nexit code {self.status}\n{output}")

    def _output_of(self, command: str) -> str:
        if command == "echo $?":
            status, self.status = self.status, 0
            return str(status)
        if exported := _EXPORT.fullmatch(command):
            self._export(exported[1], exported[2])
            return ""
        if command.split(maxsplit=1)[0] == "make":
            # CI runs these for real, and some of them run this test.
            require_targets(command)
            return ""
        return self._shell(command)

    def _export(self, name: str, value: str) -> None:
        if name in _GIVEN and _GIVEN & self.environment.keys():
            return
        self.environment[name] = self._shell(f"printf %s {value}")

    def _shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            check=False,
            cwd=self.folder,
            encoding="utf-8",
            env=self.environment,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_SECONDS,
        )
        self.status = done.returncode
        return done.stdout


def parse(text: str) -> Iterator[Step]:
    """Split a console block: `$ ` begins a command, `> ` or a closing backslash continues it."""
    step: Step | None = None
    for line in text.splitlines():
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(line.removeprefix("$ "))
        elif step is None:
            raise DocumentationError(f"output before the first command: {line}")
        elif step.command.endswith("\\") or line.startswith("> "):
            step.command += "\n" + line.removeprefix("> ")
        else:
            step.expected.append(line)
    if step is not None:
        yield step


def require_output(step: Step, output: str) -> None:
    """Find the expected lines in the output, in order; others may stand between them."""
    lines = iter(output.splitlines())
    for expected in filter(str.strip, step.expected):
        pattern = _pattern(expected)
        if not any(pattern.fullmatch(_squeezed(line)) for line in lines):
            raise DocumentationError(
                f"$ {step.command}\nthe page shows, and the output lacks: {expected}\n{output}"
            )


def require_targets(command: str) -> None:
    """Find each target of a make command in the Makefile."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for word in shlex.split(command, comments=True)[1:]:
        if "=" not in word and not re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE):
            raise DocumentationError(f"$ {command}\nthe Makefile has no target {word}")


def _pattern(expected: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, _squeezed(expected).split("…"))))


def _squeezed(line: str) -> str:
    # Columns move with the width of a path or a time.
    return " ".join(line.split())
