"""The application: its groups of commands, and how an error ends it."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from agentobs.cli import (
    agents,
    archive,
    db,
    dead_letters,
    doctor,
    maintain,
    reading,
    report,
    server,
    spool,
    status,
    trace,
)
from agentobs.cli.answers import in_words
from agentobs.errors import AgentobsError

app = typer.Typer(
    help="The observability database of your agents: what they did, and how to keep it.",
    no_args_is_help=True,
    # A traceback with local variables would show URLs and documents.
    pretty_exceptions_enable=False,
)
app.command(name="status")(status.command)
app.command(name="workflows")(reading.workflows_command)
app.command(name="trace")(trace.command)
app.add_typer(agents.app, name="agents")
app.command(name="routing")(reading.routing_command)
app.command(name="calibration")(reading.calibration_command)
app.command(name="handoffs")(reading.handoffs_command)
app.command(name="alerts")(reading.alerts_command)
app.command(name="report")(report.command)
app.add_typer(db.app, name="db")
app.add_typer(server.app, name="server")
app.command(name="maintain")(maintain.command)
app.command(name="doctor")(doctor.command)
app.add_typer(archive.app, name="archive")
app.add_typer(spool.app, name="spool")
app.add_typer(dead_letters.app, name="dead-letters")


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
