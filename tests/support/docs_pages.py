"""Read a page: on what it runs, and its fenced blocks with what the comments above them say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from support.shell import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What is run, and what is only read. Any other language would be a block that nobody checks.
RUN = frozenset({"console", "diff", "python", "sql"})
READ = frozenset({"ini", "mermaid", "text", "toml", "yaml"})

_RUNS_ON = re.compile(r"^<!-- runs on: (.+?) -->$", re.MULTILINE)
_BLOCK = re.compile(
    r"(?:^<!-- (?P<what>not run|file): (?P<said>.+?) -->\n+)?"
    r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class RunsOn(StrEnum):
    """What a page finds when its first block runs; each page has its own."""

    HEAD = "database at head"
    EMPTY = "empty database"
    EMBEDDED = "embedded server"
    # For pages about projects that use the package; a server for tests is in the environment.
    FOLDER = "empty folder"
    # For pages about the database of such a project; the package is there as the wheel installs it.
    PROJECT = "empty folder and database"


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is where its text goes, `not_run` why it is left alone."""

    language: str
    text: str
    line: int
    file: str | None = None
    not_run: str | None = None

    @property
    def is_run(self) -> bool:
        return self.not_run is None and (self.language in RUN or self.file is not None)


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.path.relative_to(REPOSITORY))

    @property
    def runs_on(self) -> RunsOn | None:
        found = _RUNS_ON.search(self.text)
        return RunsOn(found[1]) if found else None

    @property
    def blocks(self) -> list[Block]:
        return list(self._blocks())

    @property
    def is_run(self) -> bool:
        return any(block.is_run for block in self.blocks)

    def _blocks(self) -> Iterator[Block]:
        for found in _BLOCK.finditer(self.text):
            yield Block(
                language=found["language"],
                text=found["text"],
                line=self.text.count("\n", 0, found.start("language")) + 1,
                file=found["said"] if found["what"] == "file" else None,
                not_run=found["said"] if found["what"] == "not run" else None,
            )


def read_page(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


def all_pages() -> list[Page]:
    paths = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [read_page(path) for path in paths]
