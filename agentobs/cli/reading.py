"""The commands that read: what agents and the router did in a window of time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agentobs.analytics.handoff_graph import handoffs
from agentobs.analytics.recent_workflows import workflows
from agentobs.analytics.reliability import Calibration, calibration
from agentobs.analytics.router import routing
from agentobs.analytics.thresholds import alerts
from agentobs.cli.answers import NOTHING_FOUND, AsCsv, Since, grid, show
from agentobs.cli.database import open_session_factory
from agentobs.cli.terminal import AsJson, console, in_words, plain
from agentobs.errors import AgentobsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics import Table
    from agentobs.analytics.reliability import GroupCalibration
    from agentobs.analytics.thresholds import Alert

Answer = TypeVar("Answer")

_ROUTING = (
    "begins_at", "decisions", "p50_total_us", "p95_total_us", "p99_total_us",
    "over_target_share", "cache_hit_rate", "mean_cache_age_seconds",
)  # fmt: skip
_CALIBRATION = (
    "group", "count", "has_enough_data", "expected_calibration_error", "brier_score",
    "mean_prediction_error", "verdict",
)  # fmt: skip
_BINS = ("low_confidence", "high_confidence", "count", "mean_confidence", "success_rate")
_HANDOFFS = ("source_agent", "target_agent", "count", "success_rate", "mean_ms")
_WORKFLOWS = ("correlation_id", "began_at", "first_agent", "runs", "failed", "running")
_ALERTS = ("name", "subject", "value", "bound", "rows", "has_enough_data", "is_firing")
# Checks of the tables, one for each of many; below such a share of their bound they tell nothing.
_TABLE_CHECKS = frozenset({"expired_rows_age_days", "partition_rows"})
_NEAR = 0.8
# So many lines of a series are still read.
_MOST_HOURS = timedelta(days=2)


def routing_command(
    since: Since = "24h",  # type: ignore[assignment]  # Typer parses the default, too
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the router over time: decisions, their times, the cache.

    By the hour up to two days, by the day beyond. Slow is the share of decisions that took 100 ms
    or more; the age is that of the cache's hits.
    """
    every = timedelta(hours=1) if since.length <= _MOST_HOURS else timedelta(days=1)
    answer = ask(lambda session: routing(session, since, every))
    if not (as_json or as_csv or any(bucket.decisions for bucket in answer)):
        console().print(NOTHING_FOUND)
        return
    show(answer, _ROUTING, as_json=as_json, as_csv=as_csv)


def calibration_command(
    since: Since = "7d",  # type: ignore[assignment]  # as above
    by: Annotated[str, typer.Option(help="Compare by agent or by strategy.")] = "agent",
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show how well the router's confidence foretells success.

    CSV has the groups, with their bins and intervals as JSON; the whole is in JSON alone.
    """
    if by not in {"agent", "strategy"}:
        raise typer.BadParameter("give agent or strategy", param_hint="--by")
    answer = ask(lambda session: calibration(session, since, by=by))  # type: ignore[arg-type]
    if as_csv:
        show(answer.groups, _CALIBRATION, as_json=as_json, as_csv=True)
    elif as_json:
        show(answer, (), as_json=True, as_csv=False)
    else:
        _print_calibration(answer)


def handoffs_command(
    since: Since = "7d",  # type: ignore[assignment]  # as above
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show who hands over to whom, ping-pong between two agents, and dead ends.

    CSV has the hand-offs alone.
    """
    answer = ask(lambda session: handoffs(session, since))
    if as_csv or as_json:
        show(answer.edges if as_csv else answer, (), as_json=as_json, as_csv=as_csv)
        return
    show(answer.edges, _HANDOFFS, as_json=False, as_csv=False)
    for title, table in (("ping-pong", answer.ping_pongs), ("dead ends", answer.dead_ends)):
        if table:
            console().print()
            console().print(plain(title))
            show(table, tuple(table.row_kind().model_fields), as_json=False, as_csv=False)


def workflows_command(
    since: Since = "24h",  # type: ignore[assignment]  # as above
    only: Annotated[
        str | None, typer.Option(help="Show only those with a run that failed, or is running.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 20,
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the newest workflows: `agentobs trace ID` shows one of them as a tree."""
    if only not in {None, "failed", "running"}:
        raise typer.BadParameter("give failed or running", param_hint="--only")
    answer = ask(
        lambda session: workflows(session, since, only, limit=limit)  # type: ignore[arg-type]
    )
    show(answer, _WORKFLOWS, as_json=as_json, as_csv=as_csv)


def alerts_command(
    since: Since = "24h",  # type: ignore[assignment]  # as above
    *,
    every_check: Annotated[
        bool,
        typer.Option(
            "--all", help="Show also checks that have no data, and tables far from their bounds."
        ),
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Check the thresholds; exit code 1 where one is crossed, 3 where none could be checked.

    JSON and CSV have all checks.
    """
    try:
        answer = ask(lambda session: alerts(session, since))
    except AgentobsError as error:
        # To who watches, a database that does not answer is another thing than an alert.
        typer.echo(in_words(error), err=True)
        raise typer.Exit(3) from error
    if every_check or as_json or as_csv:
        show(answer, _ALERTS, as_json=as_json, as_csv=as_csv)
    else:
        _print_alerts(answer)
    if any(alert.is_firing for alert in answer):
        raise typer.Exit(1)


def ask(question: Callable[[AsyncSession], Awaitable[Answer]]) -> Answer:
    """Ask the database a question, in a transaction of its own that changes nothing."""

    async def answered() -> Answer:
        async with open_session_factory() as sessions, sessions() as session:
            return await question(session)

    return asyncio.run(answered())


def _print_alerts(answer: Table[Alert]) -> None:
    told = [alert for alert in answer if _tells_something(alert)]
    if told:
        console().print(grid(told, _ALERTS))
    if others := len(answer) - len(told):
        rest = "have no data or are far from their bounds: --all shows them"
        console().print(plain(f"{others} checks {rest}"))


def _tells_something(alert: Alert) -> bool:
    if alert.is_firing or alert.value is None:
        return alert.is_firing
    return alert.name not in _TABLE_CHECKS or alert.value >= _NEAR * alert.bound


def _print_calibration(answer: Calibration) -> None:
    overall: GroupCalibration = answer.overall
    if not overall.has_enough_data:
        console().print(plain(f"not enough data: {overall.count} validated decisions"))
        return
    console().print(grid([overall, *answer.groups], _CALIBRATION))
    console().print()
    console().print(plain("reliability of all"))
    console().print(grid([each for each in overall.bins if each.count], _BINS))
