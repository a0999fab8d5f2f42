"""One run: read what there is, decide, and do it, under the lock that keeps runs apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MaintenanceBlockedError
from agentobs.maintenance.locks import look_around, maintenance_lock
from agentobs.maintenance.partitions import make_month
from agentobs.maintenance.payload import discard_rewrite, expire_payload
from agentobs.maintenance.plan import (
    DiscardRestoration,
    DiscardRewrite,
    DropExpired,
    ExpireMonth,
    ExpirePayload,
    FoldRollups,
    MakeMonth,
    Plan,
    Step,
    make_plan,
)
from agentobs.maintenance.policy import Policy
from agentobs.maintenance.restore import discard_restoration
from agentobs.maintenance.retention import drop_expired, expire_month
from agentobs.maintenance.rollups import backlogs_of, fold_rollups
from agentobs.maintenance.workplace import Run, Watcher, open_run
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from agentobs.maintenance.months import Month
    from agentobs.settings import DatabaseSettings


async def plan_maintenance(
    policy: Policy | None = None, *, settings: DatabaseSettings | None = None
) -> Plan:
    """Return what `maintain` would do now; nothing is changed, and nothing waits."""
    async with open_run(settings or read_settings(), Watcher(), 0) as run:
        return await _plan(run, policy or Policy())


async def maintain(
    policy: Policy | None = None,
    *,
    settings: DatabaseSettings | None = None,
    watcher: Watcher | None = None,
    patience_seconds: float = 60,
) -> Plan | None:
    """Do what the plan says; return it, or None where another run is at work.

    Each step is tried for `patience_seconds` while others keep locks that it needs, and the rest
    is done without it. Raises MaintenanceBlockedError at the end where one was given up: what is
    done stays done, and the next run goes on.
    """
    async with (
        open_run(settings or read_settings(), watcher or Watcher(), patience_seconds) as run,
        maintenance_lock(run) as is_ours,
    ):
        if not is_ours:
            return None
        plan = await _plan(run, policy or Policy())
        run.watcher.planned(plan)
        await _do_all(run, plan)
        return plan


async def _do_all(run: Run, plan: Plan) -> None:
    """Do every step; those that others block are told last, and stop only others of their month."""
    blocked: list[MaintenanceBlockedError] = []
    given_up: set[tuple[str, Month]] = set()
    for step in plan.steps:
        month = _month_of(step)
        if month in given_up:
            continue
        run.watcher.started(step)
        try:
            await _do(run, step)
        except MaintenanceBlockedError as error:
            blocked.append(error)
            given_up.update([month] if month else [])
        else:
            run.watcher.finished(step)
    if blocked:
        raise blocked[0]


def _month_of(step: Step) -> tuple[str, Month] | None:
    return None if isinstance(step, FoldRollups) else (step.part.table.name, step.part.month)


async def _plan(run: Run, policy: Policy) -> Plan:
    return make_plan(await look_around(run), policy, await backlogs_of(run, policy.now))


async def _do(run: Run, step: Step) -> None:
    match step:
        case FoldRollups():
            await fold_rollups(run, step)
        case MakeMonth():
            await make_month(run, step)
        case ExpireMonth():
            await expire_month(run, step)
        case DropExpired():
            await drop_expired(run, step)
        case ExpirePayload():
            await expire_payload(run, step)
        case DiscardRewrite():
            await discard_rewrite(run, step)
        case DiscardRestoration():
            await discard_restoration(run, step.part)
