"""agentobs report: a window of time as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentobs.cli.answers import Since  # noqa: TC001 (Typer reads it)
from agentobs.cli.reading import ask
from agentobs.cli.terminal import console, plain
from agentobs.report import check_output, gather, render, require_extra, write_file

if TYPE_CHECKING:
    from agentobs.report import ReportData

_KIB = 1024


def command(
    since: Since = "30d",  # type: ignore[assignment]  # Typer parses the default, too
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the page.")
    ] = Path("report.html"),
) -> None:
    """Write what agents and the router did as one HTML file, for any browser, without a network.

    A file of that name is replaced. Requests, contexts and messages are not in it.
    """
    require_extra()
    # Before the database is asked, which may take its time.
    check_output(output)
    data: ReportData = ask(lambda session: gather(session, since))
    size = write_file(output, render(data))
    console().print(plain(f"{output}  {size / _KIB:,.0f} KiB"))
