"""agentobs spool: what recorders left on this machine, and its way to the database."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from agentobs.cli.recorder_folder import Folder, place_of
from agentobs.embedded.default import with_database
from agentobs.errors import ConfigurationError
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.running import Running, target_of
from agentobs.recorder.spool.folder import NOTE, opened_for_reading, read_note, segments_in
from agentobs.recorder.spool.spool import describe_spools
from agentobs.recorder.statistics import Counters
from agentobs.settings import read_recorder_settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs.recorder.spool.spool import SpoolSummary
    from agentobs.settings import DatabaseSettings

app = typer.Typer(help="See what recorders left on this machine.", no_args_is_help=True)

_LOOK_EVERY = 0.05
_SPOOLS = "spools"


@app.command()
def status(folder: Folder = None) -> None:
    """Show the spools with records that are not in the database, and the dead letters."""
    place, here = place_of(folder), _target_of_environment()
    table = Table("spool", "bytes", "process", "database", box=None, pad_edge=False)
    for spool in describe_spools(place / _SPOOLS):
        state = "runs" if spool.is_alive else "is gone"
        table.add_row(spool.path.name, f"{spool.bytes:,}", state, _database_of(spool, here))
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
    recorded_for: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATABASE",
            help="Bring here what was recorded for another database, named as status shows it.",
        ),
    ] = None,
) -> None:
    """Write to the database what processes that died left in their spools.

    The next recorder that starts with that folder and database does the same. What was recorded
    for another database stays, unless --from names it; exit code 1 where something is left.
    """
    place = place_of(folder)
    if recorded_for is not None:
        _require_spools_of(recorded_for, place)
    with with_database(read_settings()) as settings:
        is_done = _replay(place, settings, recorded_for, timeout)
        others = Counter() if recorded_for else _left_for_others(place, target_of(settings))
        _tell(others, target_of(settings))
    if not is_done:
        typer.echo("agentobs: there is more: run it again", err=True)
    if others or not is_done:
        raise typer.Exit(1)


def _replay(
    place: Path, database: DatabaseSettings, recorded_for: str | None, timeout: float
) -> bool:
    """Replay for as long as there is time, and say how much; return whether that was all."""
    deadline, counters = time.monotonic() + timeout, Counters()
    settings = read_recorder_settings(delivery="spool", folder=place, flush_interval=_LOOK_EVERY)
    running = Running(settings, database, counters, replayed=recorded_for)
    try:
        while running.is_replaying and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
        is_done = not running.is_replaying
    finally:
        running.close(settings.close_timeout)
    typer.echo(f"replayed: {sum(counters.snapshot({}).replayed.values()):,} records")
    return is_done


def _require_spools_of(target: str, place: Path) -> None:
    found = {spool.target for spool in describe_spools(place / _SPOOLS) if spool.target}
    if target not in found:
        known = ", ".join(map(shlex.quote, sorted(found))) or "no spool at all"
        raise typer.BadParameter(f"no spool was recorded for {target}; there is: {known}")


def _left_for_others(place: Path, here: str) -> Counter[str]:
    """Count by database the spools with records for others, whose process is gone."""
    return Counter(
        spool.target
        for spool in describe_spools(place / _SPOOLS)
        if spool.target not in {None, here} and not spool.is_alive and _has_records(spool.path)
    )


def _has_records(spool: Path) -> bool:
    """Tell whether there is anything behind the note of what is settled."""
    with suppress(FileNotFoundError), opened_for_reading(spool / NOTE) as note:
        settled = read_note(note)
        return any(place > settled for place in segments_in(spool).items())
    return bool(segments_in(spool))


def _tell(others: Counter[str], here: str) -> None:
    for target, number in sorted(others.items()):
        spools = "spool" if number == 1 else "spools"
        typer.echo(
            f"agentobs: left: {number:,} {spools} of another database, {target} (this one is "
            f"{here}): name it by AGENTOBS_DATABASE_URL and AGENTOBS_SCHEMA, or bring the records "
            f"here by --from {shlex.quote(target)}",
            err=True,
        )


def _target_of_environment() -> str | None:
    """Return the database that the environment names; None where it names none."""
    with suppress(ConfigurationError):
        return target_of(read_settings())
    return None


def _database_of(spool: SpoolSummary, here: str | None) -> str:
    if spool.target is None:
        return "unknown"
    is_other = here is not None and spool.target != here
    return f"{spool.target} (not that of the environment)" if is_other else spool.target
