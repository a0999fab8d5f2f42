"""agentobs spool: what recorders left on this machine, and its way to the database."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agentobs.cli.recorder_folder import Folder, place_of
from agentobs.embedded.default import with_database
from agentobs.recorder import Recorder
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.spool.spool import describe_spools
from agentobs.settings import read_settings

app = typer.Typer(help="See what recorders left on this machine.", no_args_is_help=True)

_LOOK_EVERY = 0.05


@app.command()
def status(folder: Folder = None) -> None:
    """Show the spools with records that are not in the database, and the dead letters."""
    place = place_of(folder)
    table = Table("spool", "bytes", "process", "database", box=None, pad_edge=False)
    for spool in describe_spools(place / "spools"):
        state = "runs" if spool.is_alive else "is gone"
        table.add_row(spool.path.name, f"{spool.bytes:,}", state, spool.target or "unknown")
    typer.echo(f"folder: {place}")
    console = Console(width=10_000, soft_wrap=True, highlight=False, markup=False)
    console.print(table if table.row_count else "no spools")
    letters = Counter(
        (letter["kind"], letter["reason"]) for letter in read_dead_letters(place / "dead-letters")
    )
    for (kind, reason), number in letters.most_common():
        console.print(f"dead letters: {number:,} {kind}: {reason}")


@app.command()
def replay(
    folder: Folder = None,
    timeout: Annotated[float, typer.Option(help="Seconds to go on for at most.")] = 600,
) -> None:
    """Write to the database what processes that died left in their spools.

    The next recorder that starts with that folder and database does the same; exit code 1 where
    something is left.
    """
    place, deadline = place_of(folder), time.monotonic() + timeout
    with with_database(read_settings()) as settings:
        recorder = Recorder(settings, delivery="spool", folder=place, flush_interval=_LOOK_EVERY)
        with recorder:
            while recorder.is_replaying and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY)
            is_done = not recorder.is_replaying
    typer.echo(f"replayed: {sum(recorder.statistics().replayed.values()):,} records")
    if not is_done:
        typer.echo("agentobs: there is more: run it again", err=True)
        raise typer.Exit(1)
