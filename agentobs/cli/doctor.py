"""agentobs doctor: what is wrong with the database, and how to mend it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from agentobs.cli.maintain import parse_age
from agentobs.cli.terminal import AsJson, console, plain
from agentobs.doctor import Diagnosis, Finding, Severity, Thresholds, diagnose
from agentobs.embedded.default import with_database
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_EXIT_CODES = {Severity.WARNING: 3, Severity.CRITICAL: 4}
_COLOURS = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.NOTICE: "cyan"}


def command(
    keep: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_age,
            metavar="AGE",
            help="What `agentobs maintain --keep` is given: say which months should be gone.",
        ),
    ] = None,
    keep_payload: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_age, metavar="AGE", help="As `agentobs maintain --keep-payload`."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the server may take for one check.")
    ] = 2,
    *,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with the database, and show the command or SQL that mends it.

    Nothing is changed. Exit code 0 where there is nothing worse than a notice, 3 with a warning, 4
    where something is critical, as a server that can't be reached.
    """
    thresholds = Thresholds(
        keep=keep, keep_payload=keep_payload, check_timeout=timedelta(seconds=timeout)
    )
    with with_database(read_settings()) as settings:
        found = asyncio.run(diagnose(settings, thresholds=thresholds))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found)
    raise typer.Exit(_EXIT_CODES.get(found.worst, 0))


def _print(found: Diagnosis) -> None:
    out = console()
    if found.server is not None:
        server = found.server
        standby = ", a standby" if server.is_standby else ""
        head = f"PostgreSQL {server.version} at {server.place}{standby}, database "
        head += f"{server.database}, schema {server.schema_name}, as {server.role}"
        out.print(plain(head), soft_wrap=True)
        out.print()
    for severity, findings in groupby(found.findings, key=lambda finding: finding.severity):
        if severity is Severity.OK:
            out.print(plain(f"ok: {', '.join(finding.check for finding in findings)}"))
        else:
            _print_group(out, severity, list(findings))
    out.print(plain(_summary(found)))


def _print_group(out: Console, severity: Severity, findings: Sequence[Finding]) -> None:
    out.print(plain(severity), style=_COLOURS[severity])
    for finding in findings:
        out.print(plain(f"  {finding.check}: {finding.words}"), soft_wrap=True)
        for number, line in enumerate((finding.fix or "").splitlines()):
            # Lines of SQL are pasted together.
            out.print(plain(f"    {'     ' if number else 'fix: '}{line}"), soft_wrap=True)
    out.print()


def _summary(found: Diagnosis) -> str:
    counts = {
        severity: sum(finding.severity is severity for finding in found.findings)
        for severity in reversed(Severity)
    }
    words = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
    return f"{words}, in {found.seconds:.2f} s"
