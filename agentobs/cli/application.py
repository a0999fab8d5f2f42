"""The application: its groups of commands, and how an error ends it."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from agentobs.cli.commands import Commands
from agentobs.cli.terminal import in_words
from agentobs.errors import AgentobsError

app = typer.Typer(
    cls=Commands,
    help="The observability database of your agents: what they did, and how to keep it.",
    no_args_is_help=True,
    # A traceback with local variables would show URLs and documents.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command that the arguments name; an error of the package is one line, exit code 1."""
    logging.basicConfig(format="agentobs: %(message)s", stream=sys.stderr)
    logging.getLogger("agentobs").setLevel(logging.INFO)
    try:
        app()
    except AgentobsError as error:
        sys.exit(in_words(error))


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"agentobs-orm {distribution_version('agentobs-orm')}")
        raise typer.Exit
