"""What reaches the terminal: text of anybody's without control codes, and colours there alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from agentobs.printable import printable

if TYPE_CHECKING:
    from agentobs.errors import AgentobsError

# Where the output is no terminal, a line is as long as it has to be.
_WIDTH = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]


def console(*, stderr: bool = False) -> Console:
    """Return where text goes: coloured on a terminal alone, and never cut elsewhere."""
    found = Console(stderr=stderr, highlight=False)
    if found.is_terminal:
        return found
    return Console(stderr=stderr, width=_WIDTH, soft_wrap=True, highlight=False)


def plain(value: object) -> Text:
    """Return a line in which nothing of anybody's is markup or a control code."""
    return Text(printable(value).replace("\n", "�"))


def in_words(error: AgentobsError) -> str:
    """Return what is told of an error: names and texts in it may be anybody's."""
    return printable(f"agentobs: {error}")
