"""agentobs db adopt: go on from tables that hand-run scripts made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from agentobs import migrations
from agentobs.cli.terminal import plain
from agentobs.embedded.default import with_database
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from agentobs.migrations import Adoption


def command(
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without it, it is told what would be done.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Mend what loses nothing: a missing index, comment, default, or a constraint "
            "that the rows satisfy.",
        ),
    ] = False,
) -> None:
    """Take over the tables of hand-run scripts: compare them, record revision 0003.

    Then `agentobs db upgrade` goes on from there with all rows. Exit code 1 where the tables
    differ in a way that is not to be mended, or that --repair would mend and was not given.
    """
    with with_database(read_settings()) as settings:
        found = asyncio.run(migrations.inspect(settings=settings))
        _describe(found, repair=repair)
        if (refusal := found.refusal(repair=repair)) is not None:
            raise refusal
        if not found.is_needed:
            return
        if not apply:
            typer.echo("Nothing was changed: run it again with --apply.")
            return
        done = asyncio.run(migrations.adopt(repair=repair, settings=settings))
    typer.echo(f"{len(done.repaired)} differences were mended")
    typer.echo(f"schema {done.schema} is recorded to be at 0003: run `agentobs db upgrade`")


def _describe(found: Adoption, *, repair: bool) -> None:
    if not found.is_needed:
        typer.echo(f"schema {found.schema} is at revision {found.revision}: nothing to adopt")
        return
    for difference in found.comparison.faults:
        is_mended = repair and difference.is_safe
        _say(f"{'to mend' if is_mended else 'differs'}: {difference}")
        _say_how(difference.statements, is_safe=difference.is_safe)
    if comments := len(found.comparison.differences) - len(found.comparison.faults):
        typer.echo(f"{'to mend' if repair else 'differs'}: {comments} comments are missing")
    for addition in found.comparison.additions:
        _say(f"yours, and left alone: {addition}")
    if found.obstacles is not None:
        _say(f"in the way of revision 0005: {found.obstacles}")
    if not found.comparison.differences:
        typer.echo(f"the tables in schema {found.schema} are those of revision 0003")


def _say_how(statements: tuple[str, ...], *, is_safe: bool) -> None:
    for statement in statements:
        for line in f"{'' if is_safe else 'yours to decide: '}{statement};".splitlines():
            _say(f"    {line}")


def _say(words: str) -> None:
    # Names and texts of the host's may hold anything.
    typer.echo(plain(words))
