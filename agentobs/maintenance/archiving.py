"""Archive what a step lets go, where the plan names an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.maintenance.archive import ArchiveSource, write_archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run


async def archive_month(
    run: Run,
    part: MonthPartition,
    archive: str | None,
    *,
    payload: Sequence[str] | None = None,
) -> None:
    """Make sure that the archive holds the month as it is now; nothing where there is none.

    The same rows are archived once: a second call only reads and compares them.
    """
    if archive is None:
        return
    source = ArchiveSource(run.schema, part.table, part.name, part.month)
    await write_archive(
        run.connection, source, archive, payload=payload, progress=run.watcher.progressed
    )
