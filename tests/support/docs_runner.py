"""Run the blocks of one page in their order: `python -m support.docs_runner PAGE`.

The process is the page's own, with the page's folder, environment and imports.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.docs_console import Console, DocumentationError, Step, require_output
from support.docs_pages import read_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.docs_pages import Block, Page


@dataclass
class Runner:
    """Runs blocks; the Python blocks of a page share one namespace and one event loop."""

    page: Page
    console: Console
    loop: asyncio.Runner
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__docs__"})
    printed: str = ""

    def run(self) -> None:
        blocks = self.page.blocks
        for number, block in enumerate(blocks):
            if block.is_run:
                self._run(block, blocks[number + 1 :])

    def _run(self, block: Block, rest: Sequence[Block]) -> None:
        try:
            if block.file is not None:
                self._write(block, block.file)
                return
            getattr(self, f"_run_{block.language}")(block)
            if block.language in {"python", "sql"} and rest and rest[0].language == "text":
                shown = Step(f"({block.language} block)", rest[0].text.splitlines())
                require_output(shown, self.printed)
        except DocumentationError as error:
            raise DocumentationError(f"{self.page.name}:{block.line}: {error}") from None

    def _write(self, block: Block, file: str) -> None:
        path = self.console.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def _run_console(self, block: Block) -> None:
        self.console.run(block.text)

    def _run_diff(self, block: Block) -> None:
        self._pipe(["git", "apply", "--recount", "-"], block.text)

    def _run_sql(self, block: Block) -> None:
        url = self.console.environment["AGENTOBS_DATABASE_URL"]
        command = ["psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--dbname", url]
        self.printed = self._pipe(command, block.text)

    def _pipe(self, command: list[str], text: str) -> str:
        done = subprocess.run(
            command,
            check=False,
            cwd=self.console.folder,
            encoding="utf-8",
            env=self.console.environment,
            input=text,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
        )
        if done.returncode != 0:
            raise DocumentationError(done.stdout)
        return done.stdout

    def _run_python(self, block: Block) -> None:
        # The traceback of a failure names the page and its line.
        source = "\n" * block.line + block.text
        code = compile(source, self.page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            result = eval(code, self.namespace)  # noqa: S307 (our own pages)
            if inspect.iscoroutine(result):
                self.loop.run(result)
        self.printed = output.getvalue()


def main(path: Path) -> None:
    with asyncio.Runner() as loop:
        # The process's own environment: what a page exports, its Python blocks see too.
        Runner(read_page(path), Console(Path.cwd(), os.environ), loop).run()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DocumentationError as error:
        sys.exit(str(error))
