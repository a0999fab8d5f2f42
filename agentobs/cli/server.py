"""agentobs server: the embedded PostgreSQL, kept running until it is stopped."""

from __future__ import annotations

import os
import subprocess
from typing import Annotated

import typer

from agentobs import embedded
from agentobs.settings import read_settings

app = typer.Typer(help="Run the embedded PostgreSQL.", no_args_is_help=True)


@app.command()
def start() -> None:
    """Start the server, and keep it running until `agentobs server stop`."""
    server = embedded.start_server(read_settings().data_dir)
    typer.echo(f"PostgreSQL is running; its data is in {server.data_directory}")
    typer.echo(server.url)


@app.command()
def stop() -> None:
    """Stop the server, also under those who use it; its data stays."""
    stopped = embedded.stop_server(read_settings().data_dir)
    typer.echo("PostgreSQL has stopped." if stopped else "PostgreSQL was not running.")


@app.command()
def status() -> None:
    """Show whether the server runs; exit code 3 where it does not, as pg_ctl has it."""
    found = embedded.server_status(read_settings().data_dir)
    facts = {
        "running": "no"
        if not found.running
        else "yes, until stopped"
        if found.persistent
        else "yes",
        "pid": found.pid or "",
        "version": found.version,
        "data": found.data_directory,
        "socket": found.socket_directory,
        "log": found.log_file,
        "url": found.url,
    }
    for name, value in facts.items():
        typer.echo(f"{name:<8} {value}")
    raise typer.Exit(0 if found.running else 3)


@app.command()
def url() -> None:
    """Print the server's URL, for psql and AGENTOBS_DATABASE_URL; exit code 3 where it is down."""
    found = embedded.server_status(read_settings().data_dir)
    typer.echo(found.url)
    if not found.running:
        typer.echo("agentobs: the server is not running: agentobs server start", err=True)
        raise typer.Exit(3)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of psql.")] = None,
) -> None:
    """Open psql on the server, which runs at least until psql ends."""
    with embedded.running_server(read_settings().data_dir) as server:
        command = [str(server.binary("psql")), "--dbname", server.url, *(arguments or [])]
        # What libpq reads there (PGSERVICE, PGSSLMODE, …) is meant for other servers.
        own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        raise typer.Exit(subprocess.run(command, env=own, check=False).returncode)
