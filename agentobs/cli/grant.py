"""agentobs db grant: the rights of the roles of services and dashboards."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from agentobs import migrations
from agentobs.embedded.default import with_database
from agentobs.settings import read_settings


def command(
    *,
    writer: Annotated[
        list[str] | None,
        typer.Option(help="A role that records and loads definitions; may be given again."),
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(help="A role that asks and can't write; may be given again."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Run it; without it, the SQL is printed.")
    ] = False,
) -> None:
    """Let roles write or read, with no more rights than that takes.

    A role may do both: name it twice. The tables must be at head. Run it again after an upgrade.
    """
    if not (writer or reader):
        raise typer.BadParameter("name a role by --writer or by --reader")
    with with_database(read_settings()) as settings:
        statements = asyncio.run(
            migrations.grant(
                writers=writer or (), readers=reader or (), apply=apply, settings=settings
            )
        )
    if apply:
        typer.echo(_done("write", writer) + _done("read", reader), nl=False)
        return
    typer.echo("\n".join(("BEGIN;", *(f"{each};" for each in statements), "COMMIT;")))
    typer.echo("Nothing was changed: run it again with --apply.", err=True)


def _done(what: str, roles: list[str] | None) -> str:
    return "".join(f"{role} may {what}\n" for role in roles or ())
