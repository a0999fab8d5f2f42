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
    """Fold what the step names; raise MaintenanceBlockedError where something keeps it back."""
    if step.anew:
        await rollups.forget_partitions(_store(run), _FAMILIES[step.table.name])
    if left := await bring_up_to_date(run, step.table):
        raise MaintenanceBlockedError(
            f"hours of {step.table.name} are not folded yet, for transactions that were open when "
            f"they closed may have written to them: {'; '.join(left)}. They are read row by row; "
            "end these, or run again later",
            blockers=left,
        )


async def bring_up_to_date(run: Run, table: EventTable) -> list[str]:
    """Fold all that can be folded, and return who keeps the rest back.

    Raises MaintenanceBlockedError where another one folds.
    """
    patience = min(_PATIENCE_SECONDS, run.patience_seconds)
    try:
        return await rollups.bring_up_to_date(
            _store(run), _FAMILIES[table.name], datetime.now(UTC), patience_seconds=patience
        )
    except ConflictError as error:
        raise MaintenanceBlockedError(f"{table.name} is not folded: {error}") from error


async def keep_rollups(run: Run, part: MonthPartition) -> None:
    """Keep the rollups of a month that goes later in this transaction.

    Raises MaintenanceBlockedError where they lag behind the month.
    """
    family, month = _FAMILIES[part.table.name], part.month
    if not await rollups.keep_hours(_store(run), family, month.first, month.end):
        raise _stays(part)


async def require_kept(run: Run, part: MonthPartition) -> None:
    """Make sure, under the locks, that a month is as it was when its rollups were kept.

    Raises MaintenanceBlockedError where it is not.
    """
    family, month = _FAMILIES[part.table.name], part.month
    if not await rollups.are_still_kept(_store(run), family, month.first, month.end):
        raise _stays(part)


def _stays(part: MonthPartition) -> MaintenanceBlockedError:
    return MaintenanceBlockedError(
        f"{part} stays, for its hours are not folded: transactions are open that may have "
        "written to them, or they have changed just now, or the partition's triggers are off "
        "(`agentobs maintain` says so). Run again later, or enable the triggers"
    )


async def take_rows_back(run: Run, part: MonthPartition, loaded: str) -> None:
    """Take rows that come back in this transaction, from a table, out of what was kept of them."""
    family, month = _FAMILIES[part.table.name], part.month
    await rollups.take_back(_store(run), family, loaded, month.first, month.end)


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
