"""agentobs archive: what maintenance has archived, whether it is intact, and its way back."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agentobs.cli.progress import TerminalWatcher, exit_when_blocked
from agentobs.cli.terminal import plain
from agentobs.embedded.default import with_database
from agentobs.maintenance import release as release_month
from agentobs.maintenance import restore as restore_archive
from agentobs.maintenance.archive import ListedArchive, list_archives, verify_archive
from agentobs.settings import read_settings

app = typer.Typer(help="List, verify and restore archives.", no_args_is_help=True)

Location = Annotated[str, typer.Argument(help="An archive: the Parquet file's path or URL.")]


@app.command(name="list")
def list_all(
    folder: Annotated[str, typer.Argument(help="The folder, or fsspec URL, of the archives.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the archives in a folder; the files themselves are not read."""
    found = list_archives(folder)
    if as_json:
        typer.echo(json.dumps([_as_json(archive) for archive in found], indent=2))
        return
    table = Table("archive", "kind", "rows", "from", "to", "", box=None, pad_edge=False)
    for archive in found:
        table.add_row(*map(plain, _cells(archive)))
    Console(width=10_000, soft_wrap=True, highlight=False, markup=False).print(table)


@app.command()
def verify(location: Location) -> None:
    """Read an archive whole, and compare it with what its manifest says."""
    with TerminalWatcher() as watcher:
        manifest = verify_archive(location, progress=watcher.progressed)
    typer.echo(plain(f"intact: {manifest.rows:,} rows of {manifest.partition}"))


@app.command()
def restore(
    location: Location,
    patience: Annotated[
        float, typer.Option(help="Seconds to try again while others keep locks.")
    ] = 60,
) -> None:
    """Bring an archive's rows, or payload, back; the month stays until it is released."""
    with (
        exit_when_blocked(),
        with_database(read_settings()) as settings,
        TerminalWatcher() as watcher,
    ):
        manifest = asyncio.run(
            restore_archive(location, settings=settings, watcher=watcher, patience_seconds=patience)
        )
    typer.echo(
        f"restored: {manifest.rows:,} rows of {manifest.partition}, which stays until "
        f"`agentobs archive release {manifest.partition}`"
    )


@app.command()
def release(
    partition: Annotated[str, typer.Argument(help="The name of a month that was restored.")],
) -> None:
    """Let retention have a restored month again."""
    with with_database(read_settings()) as settings:
        asyncio.run(release_month(partition, settings=settings))
    typer.echo(f"released: {partition}")


def _cells(archive: ListedArchive) -> tuple[str, ...]:
    manifest = archive.manifest
    if manifest is None:
        return (archive.shown, "", "", "", "", archive.problem or "")
    span = (manifest.earliest or "", manifest.latest or "")
    return (archive.shown, manifest.kind, f"{manifest.rows:,}", *span, archive.problem or "")


def _as_json(archive: ListedArchive) -> dict[str, object]:
    manifest = archive.manifest
    return {
        "archive": archive.shown,
        "problem": archive.problem,
        "manifest": manifest and manifest.model_dump(mode="json"),
    }
