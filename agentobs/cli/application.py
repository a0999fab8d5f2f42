"""The application: its groups of commands, and how an error ends it."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from agentobs.cli import agents, archive, db, maintain, server, spool
from agentobs.errors import AgentobsError

app = typer.Typer(
    help="The observability database of your agents: migrations, agent definitions, a server.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show URLs and documents.
    pretty_exceptions_enable=False,
)
app.add_typer(db.app, name="db")
app.add_typer(server.app, name="server")
app.add_typer(agents.app, name="agents")
app.command(name="maintain")(maintain.command)
app.add_typer(archive.app, name="archive")
app.add_typer(spool.app, name="spool")


def run() -> None:
    """Run the command that the arguments name; an error of the package is one line, exit code 1."""
    logging.basicConfig(format="agentobs: %(message)s", stream=sys.stderr)
    logging.getLogger("agentobs").setLevel(logging.INFO)
    try:
        app()
    except AgentobsError as error:
        sys.exit(f"agentobs: {error}")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"agentobs-orm {distribution_version('agentobs-orm')}")
        raise typer.Exit
