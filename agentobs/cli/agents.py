"""agentobs agents: the definition files of agents, and what the database holds of them."""

from __future__ import annotations

import asyncio
from datetime import UTC
from pathlib import Path  # noqa: TC003  (Typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from agentobs.analytics.performance import agents as agent_performance
from agentobs.cli.answers import AsCsv, Since, show
from agentobs.cli.database import open_session_factory
from agentobs.cli.reading import ask
from agentobs.cli.terminal import AsJson, plain
from agentobs.models import AgentDefinition
from agentobs.registry import SyncReport, sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

app = typer.Typer()

_WIDTH = 10_000
_PERFORMANCE = (
    "agent", "executions", "executions_delta", "success_rate", "p50_duration_ms", "p95_duration_ms",
    "p99_duration_ms", "mean_quality",
)  # fmt: skip
_CHANGES = ("added", "updated", "reactivated", "deactivated")


@app.callback(invoke_without_command=True)
def performance(
    context: typer.Context,
    since: Since = "7d",  # type: ignore[assignment]  # Typer parses the default, too
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what each agent did: runs, success, durations, quality; or load and list definitions.

    The trend is against the window of the same length before.
    """
    if context.invoked_subcommand is None:
        answer = ask(lambda session: agent_performance(session, since))
        show(answer, _PERFORMANCE, as_json=as_json, as_csv=as_csv)


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(help="The folder with the definition files.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Deactivate agents whose file in the folder is gone.")
    ] = False,
    root: Annotated[
        str | None,
        typer.Option(
            help="The folder's name in the database, the same wherever it is deployed; "
            "unset: its absolute path."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
) -> None:
    """Make the database hold what the YAML files of a folder say.

    Exit code 1 where a file can't be read; the others are loaded all the same.
    """
    report = asyncio.run(_sync(folder, prune=prune, root=root, dry_run=dry_run))
    _print_problems(report)
    _print_changes(report, dry_run=dry_run)
    if not report.ok:
        raise typer.Exit(1)


@app.command(name="list")
def list_active() -> None:
    """List the versions of agents that the router may choose."""
    _console().print(_agents_table(asyncio.run(_active_agents())))


async def _sync(folder: Path, *, prune: bool, root: str | None, dry_run: bool) -> SyncReport:
    async with open_session_factory() as sessions, sessions() as session:
        report = await sync_folder(session, folder, root=root, prune=prune)
        await (session.rollback() if dry_run else session.commit())
    return report


async def _active_agents() -> Sequence[Row[*tuple[Any, ...]]]:
    statement = (
        select(
            AgentDefinition.agent_name,
            AgentDefinition.agent_version,
            AgentDefinition.agent_type,
            func.coalesce(AgentDefinition.domain, ""),
            func.coalesce(func.cardinality(AgentDefinition.capabilities), 0),
            func.coalesce(func.cardinality(AgentDefinition.triggers), 0),
            AgentDefinition.last_loaded_at,
        )
        .where(AgentDefinition.is_active)
        .order_by(AgentDefinition.agent_name, AgentDefinition.agent_version)
    )
    async with open_session_factory() as sessions, sessions() as session:
        rows: Sequence[Row[*tuple[Any, ...]]] = (await session.execute(statement)).all()
    return rows


def _agents_table(rows: Sequence[Row[*tuple[Any, ...]]]) -> Table:
    table = _table("agent", "version", "type", "domain")
    for heading in ("capabilities", "triggers"):
        table.add_column(heading, justify="right")
    table.add_column("loaded (UTC)")
    for *cells, loaded in rows:
        when = "never" if loaded is None else f"{loaded.astimezone(UTC):%Y-%m-%d %H:%M}"
        table.add_row(*map(plain, (*cells, when)))
    return table


def _print_problems(report: SyncReport) -> None:
    console = _console(stderr=True)
    for warning in report.warnings:
        console.print(plain(f"warning: {warning.path}: {warning.text}"))
    for failure in report.failed:
        place = failure.path if failure.line is None else f"{failure.path}:{failure.line}"
        console.print(plain(f"error: {place}: {failure.reason}"))


def _print_changes(report: SyncReport, *, dry_run: bool) -> None:
    console = _console()
    table = _table("change", "agent", "version", "file")
    for change in _CHANGES:
        for agent in getattr(report, change):
            table.add_row(change, *map(plain, (agent.name, agent.version, agent.path)))
    if table.rows:
        console.print(table)
    console.print(plain(_summary(report) + (" (dry run: nothing is stored)" if dry_run else "")))


def _summary(report: SyncReport) -> str:
    counts = [f"{len(getattr(report, change))} {change}" for change in (*_CHANGES, "unchanged")]
    return ", ".join([*counts, f"{len(report.failed)} failed"])


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _console(*, stderr: bool = False) -> Console:
    # Names and paths are there to be copied: a terminal may wrap them, nothing may cut them.
    return Console(stderr=stderr, width=_WIDTH, soft_wrap=True, highlight=False)
