"""agentobs dead-letters: rows that the database refused, and their way back to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agentobs.cli.recorder_folder import Folder, place_of
from agentobs.cli.terminal import plain
from agentobs.embedded.default import with_database
from agentobs.recorder.dead_letters.resending import resend
from agentobs.recorder.dead_letters.writing import dead_letter_files, read_dead_letters
from agentobs.settings import read_settings

app = typer.Typer(
    help="See the rows that the database refused, and send them again.", no_args_is_help=True
)

_FOLDER = "dead-letters"

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files of letters; without any, all of the folder.",
        metavar="[FILE]...",
        exists=True,
        dir_okay=False,
    ),
]


@app.command()
def status(folder: Folder = None) -> None:
    """Show how many rows the database refused, of which kind, why and when."""
    place = place_of(folder) / _FOLDER
    counts, oldest, newest = Counter[tuple[str, str]](), "", ""
    for letter in read_dead_letters(place):
        counts[str(letter.get("kind")), str(letter.get("reason"))] += 1
        at = str(letter.get("at"))
        oldest, newest = min(oldest or at, at), max(newest, at)
    typer.echo(f"folder: {place}")
    if not counts:
        typer.echo("no dead letters")
        return
    files = len(dead_letter_files(place))
    typer.echo(f"files: {files:,}, letters: {counts.total():,}, from {oldest} to {newest}")
    _show(counts)


@app.command()
def replay(files: Files = None, folder: Folder = None) -> None:
    """Send the rows to the database again, each exactly once by its id.

    Those that the database takes leave their file; the others stay with the new reason, and the
    exit code is 1. A recorder may go on with the same folder meanwhile.
    """
    chosen = files or dead_letter_files(place_of(folder) / _FOLDER)
    with with_database(read_settings()) as settings:
        resent = asyncio.run(resend(chosen, settings))
    typer.echo(f"sent: {resent.sent.total():,} letters, left: {resent.left.total():,}")
    if resent.left:
        _show(resent.left)
        raise typer.Exit(1)


def _show(counts: Counter[tuple[str, str]]) -> None:
    table = Table("letters", "kind", "reason", box=None, pad_edge=False)
    for (kind, reason), number in counts.most_common():
        # A reason is the server's words, and those may quote anything.
        table.add_row(f"{number:,}", plain(kind), plain(reason))
    Console(width=10_000, soft_wrap=True, highlight=False, markup=False).print(table)
