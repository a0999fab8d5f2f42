"""Keep the rollups true while maintenance folds hours, lets months go and brings them back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agentobs import rollups
from agentobs.errors import ConflictError, MaintenanceBlockedError

if TYPE_CHECKING:
    from agentobs.maintenance.plan import FoldRollups
    from agentobs.maintenance.tables import EventTable, MonthPartition
    from agentobs.maintenance.workplace import Run

ROLLUP_STATE = "agentobs_rollup_state"
"""The table that is locked by whoever folds."""

_FAMILIES = {family.name: family for family in rollups.FAMILIES}
# So long an hour that has closed waits for transactions that may have written to it. Most take a
# moment; what longer ones keep back is folded by the next run, and read row by row until then.
_PATIENCE_SECONDS = 5.0


async def backlogs_of(run: Run, now: datetime) -> dict[str, rollups.Backlog]:
    """Return what the rollups of each table lack."""
    store = _store(run)
    return {
        name: await rollups.backlog_of(store, family, now) for name, family in _FAMILIES.items()
    }


async def fold_rollups(run: Run, step: FoldRollups) -> None:
    """Fold what the step names; raise MaintenanceBlockedError where another one is at it."""
    if step.anew:
        await rollups.forget_partitions(_store(run), _FAMILIES[step.table.name])
    await bring_up_to_date(run, step.table)


async def bring_up_to_date(run: Run, table: EventTable) -> None:
    """Fold all that can be folded; raise MaintenanceBlockedError where another one is at it."""
    try:
        await rollups.bring_up_to_date(
            _store(run),
            _FAMILIES[table.name],
            datetime.now(UTC),
            patience_seconds=min(_PATIENCE_SECONDS, run.patience_seconds),
        )
    except ConflictError as error:
        raise MaintenanceBlockedError(
            f"the rollups of {table.name} are being folded by another one: run again"
        ) from error


async def keep_rollups(run: Run, part: MonthPartition) -> None:
    """Keep the rollups of a month that goes in this transaction, which holds it alone.

    Raises MaintenanceBlockedError where they lag behind the month.
    """
    family, month = _FAMILIES[part.table.name], part.month
    if not await rollups.keep_hours(_store(run), family, month.first, month.end):
        raise MaintenanceBlockedError(
            f"{part} stays, for its hours are not folded yet: transactions are open that may have "
            "written to them, or its triggers are off. End them (pg_stat_activity shows them), or "
            "enable the triggers, then run again"
        )


async def forget_kept_rollups(run: Run, part: MonthPartition) -> None:
    """Forget what was kept of a month whose rows come back in this transaction."""
    family, month = _FAMILIES[part.table.name], part.month
    await rollups.forget_kept(_store(run), family, month.first, month.end)


async def are_folded_as_is(run: Run, part: MonthPartition) -> bool:
    """Tell whether the hours of a month were folded from its partition as it is."""
    family, month = _FAMILIES[part.table.name], part.month
    return await rollups.is_noted(_store(run), family, month.first, month.end)


async def note_rewritten(run: Run, part: MonthPartition) -> None:
    """Note the partition that holds the rows of the one whose hours were folded."""
    family, month = _FAMILIES[part.table.name], part.month
    await rollups.note_rewritten(_store(run), family, month.first, month.end)


def _store(run: Run) -> rollups.Store:
    return rollups.Store(run.connection, run.schema.name)
