"""How a run of maintenance shows on a terminal: its steps, its speed, who is in its way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from agentobs.cli.terminal import in_words, plain
from agentobs.errors import MaintenanceBlockedError
from agentobs.maintenance import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from rich.progress import Task, TaskID

    from agentobs.maintenance.plan import Step


_GIVEN_UP = 3


@contextmanager
def exit_when_blocked() -> Iterator[None]:
    """End the command with exit code 3 where others kept locks for too long."""
    try:
        yield
    except MaintenanceBlockedError as error:
        typer.echo(in_words(error), err=True)
        raise typer.Exit(_GIVEN_UP) from error


class TerminalWatcher(Watcher):
    """Shows a run on stderr: a line for each step, and a bar while its rows go by.

    Where stderr is no terminal, as under cron, the lines remain.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            _Rows(""),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def started(self, step: Step) -> None:
        """Print the step."""
        self._told.clear()
        self._remove_bar()
        self._line(f"{step} …")
        # Until rows are counted, the bar only says that the step goes on.
        self._task = self._progress.add_task("at work", total=None)

    def progressed(self, rows: int, total: int) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._progress.add_task("at work", total=total)
        self._progress.update(self._task, completed=rows, total=max(rows, total))

    def blocked(self, blockers: Sequence[str]) -> None:
        """Print each backend in the way, once a step."""
        # The age of a transaction is another one at each try.
        for blocker in blockers:
            name = blocker.partition(",")[0]
            if name not in self._told:
                self._told.add(name)
                self._line(f"  waiting for {blocker}")

    def finished(self, step: Step) -> None:
        """Take the bar away."""
        del step
        self._remove_bar()

    def _remove_bar(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _line(self, words: str) -> None:
        self._console.print(plain(words))


class _Rows(TextColumn):
    """How many rows are done, and how fast; nothing where they are not counted."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        speed = f", {task.speed:,.0f} rows/s" if task.speed else ""
        return Text(f"{task.completed:,.0f} of about {task.total:,.0f} rows{speed}")
