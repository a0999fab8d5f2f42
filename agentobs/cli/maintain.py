"""agentobs maintain: partitions ahead of time, and what has become too old let go."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentobs.cli.progress import TerminalWatcher, exit_when_blocked
from agentobs.cli.terminal import plain
from agentobs.embedded.default import with_database
from agentobs.maintenance import Plan, Policy, maintain, plan_maintenance
from agentobs.maintenance.archive.folders import without_password
from agentobs.maintenance.plan import FoldRollups, MakeMonth
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from agentobs.maintenance.plan import Step
    from agentobs.settings import DatabaseSettings

_AGE = re.compile(r"(\d{1,5})(d|w)")
_DAYS = {"d": 1, "w": 7}
_BUSY = "another maintenance or migration run is at work: nothing to do"


def parse_age(text: str) -> timedelta:
    """Return the age that an option gives; raise typer.BadParameter with examples."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter("give days or weeks, such as 90d or 13w")
    return timedelta(days=int(match[1]) * _DAYS[match[2]])


def command(
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without it, the plan is printed.")
    ] = False,
    ahead: Annotated[int, typer.Option(help="How many months to make ahead of this one.")] = 3,
    keep: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_age,
            metavar="AGE",
            help="Let months go that are older, such as 90d or 13w.",
        ),
    ] = None,
    keep_payload: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_age,
            metavar="AGE",
            help="Let contexts, requests and feedback of months go that are older.",
        ),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="The folder, or fsspec URL, in which to archive what goes."),
    ] = None,
    rebuild_rollups: Annotated[
        bool,
        typer.Option(
            "--rebuild-rollups",
            help="Fold all hours anew whose rows are there: after rows came without triggers.",
        ),
    ] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds to try a step again while others keep locks.")
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Make partitions ahead of time, fold closed hours, let go what is too old.

    Safe to run from cron on several machines at once: one works, the others end. Exit code 3
    where others kept locks for too long; what was done stays done, and the next run goes on.
    """
    if archive is not None and "://" not in archive:
        # A later run, from another folder, may have to finish what this one began.
        archive = str(Path(archive).absolute())
    policy = Policy(
        ahead=ahead,
        keep=keep,
        keep_payload=keep_payload,
        archive=archive,
        rebuild_rollups=rebuild_rollups,
    )
    with with_database(read_settings()) as settings:
        if not apply:
            _print(asyncio.run(plan_maintenance(policy, settings=settings)), as_json=as_json)
            return
        plan = _apply(policy, settings, patience)
    if plan is not None:
        _print(plan, as_json=as_json, applied=True)
        return
    typer.echo(_BUSY, err=True)
    if as_json:
        _print(Plan((), (_BUSY,)), as_json=True)


def _apply(policy: Policy, settings: DatabaseSettings, patience: float) -> Plan | None:
    with exit_when_blocked(), TerminalWatcher() as watcher:
        return asyncio.run(
            maintain(policy, settings=settings, watcher=watcher, patience_seconds=patience)
        )


def _print(plan: Plan, *, as_json: bool, applied: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps(_as_json(plan, applied=applied), indent=2))
        return
    for step in plan.steps:
        typer.echo(plain(f"{'done' if applied else 'would'}: {step}"))
    for note in plan.notes:
        typer.echo(plain(f"note: {note}"))
    if not plan.steps:
        typer.echo("nothing to do")
    elif not applied:
        typer.echo("Nothing was changed: run it again with --apply.")


def _as_json(plan: Plan, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "steps": [_step_as_json(step) for step in plan.steps],
        "notes": list(plan.notes),
    }


def _step_as_json(step: Step) -> dict[str, Any]:
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower()
    if isinstance(step, FoldRollups):
        return {"step": kind, "table": step.table.name, "anew": step.anew, **_backlog(step)}
    facts = {name: value for name, value in vars(step).items() if name != "part"}
    if facts.get("archive"):
        facts["archive"] = without_password(facts["archive"])
    if isinstance(step, MakeMonth):
        facts["locked_seconds"] = step.locked_seconds
    return {
        "step": kind,
        "table": step.part.table.name,
        "partition": step.part.name,
        "month": str(step.part.month),
        **facts,
    }


def _backlog(step: FoldRollups) -> dict[str, Any]:
    closed_to = step.backlog.closed_to
    return {
        "closed_to": None if closed_to is None else closed_to.isoformat(),
        "changed_hours": step.backlog.marked,
        "has_changed_partitions": step.backlog.has_changed_partitions,
    }
