"""agentobs db: the migrations, from wherever the package is installed."""

from __future__ import annotations

import asyncio
import warnings
from typing import Annotated

import typer
from sqlalchemy.exc import SAWarning

from agentobs import migrations
from agentobs.cli import adopt, grant
from agentobs.cli.terminal import plain
from agentobs.embedded.default import with_database
from agentobs.settings import read_settings

app = typer.Typer(help="Upgrade, downgrade and check the schema.", no_args_is_help=True)

app.command(name="adopt")(adopt.command)
app.command(name="grant")(grant.command)

Revision = Annotated[str, typer.Argument(help="A revision, head, base, or a step: +1, -1.")]


@app.command()
def upgrade(
    revision: Revision = "head",
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Rewrite the event tables beside the writers, then swap."),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="With --online: take back what is not finished.")
    ] = False,
) -> None:
    """Upgrade the database.

    With --online nobody waits for more than a moment; a run that was broken off goes on.
    """
    if undo and not online:
        raise typer.BadParameter("--undo takes back an online upgrade: give --online, too")
    with with_database(read_settings()) as settings:
        if undo:
            asyncio.run(migrations.undo_online(settings=settings))
            typer.echo("The online upgrade is taken back: the tables are as they were at 0004.")
        elif online:
            asyncio.run(migrations.upgrade_online(revision, settings=settings))
        else:
            asyncio.run(migrations.upgrade(revision, settings=settings))


# A step back, such as -1, is no option.
@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(revision: Revision) -> None:
    """Downgrade the database; `base` drops the tables with all their rows."""
    with with_database(read_settings()) as settings:
        asyncio.run(migrations.downgrade(revision, settings=settings))


@app.command()
def stamp(revision: Revision) -> None:
    """Record a revision without running it, for tables that you know to be its own."""
    with with_database(read_settings()) as settings:
        asyncio.run(migrations.stamp(revision, settings=settings))


@app.command()
def current() -> None:
    """Show the revision that the database is at."""
    with with_database(read_settings()) as settings:
        typer.echo(plain(asyncio.run(migrations.current(settings=settings)) or "base"))


@app.command()
def history() -> None:
    """List the revisions, newest first; needs no database."""
    for revision in migrations.revisions():
        before = revision.down_revision or "base"
        typer.echo(f"{before:>4} -> {revision.revision}  {revision.description}")


@app.command()
def check() -> None:
    """Compare the database with the models; exit code 1 where they differ."""
    # Of a CHECK that is not valid; autogenerate does not see that it is not.
    warnings.filterwarnings("ignore", "Can't validate argument", SAWarning)
    with with_database(read_settings()) as settings:
        asyncio.run(migrations.check(settings=settings))
    typer.echo("The database matches the models.")


@app.command()
def sql(
    revision: Annotated[
        str, typer.Argument(help="A revision or a range, such as 0001:0003 or head:base.")
    ] = "head",
    downgrade: Annotated[
        bool, typer.Option("--downgrade", help="Print the way down; wants a range.")
    ] = False,
) -> None:
    """Print the SQL of a run for psql; needs no database."""
    typer.echo(migrations.sql(revision, downgrade=downgrade), nl=False)
