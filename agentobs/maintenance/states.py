"""What was done to a month, noted in the transaction that did it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.maintenance.archive.folders import without_password
from agentobs.maintenance.statements import statement_with
from agentobs.maintenance.tables import STATES

if TYPE_CHECKING:
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

_NOTE = """
    INSERT INTO {states} AS noted (table_name, month, lower_id, upper_id, {columns})
    VALUES (:table, :month, :lower, :upper, {values})
    ON CONFLICT (table_name, month) DO UPDATE SET {updates}
"""


async def note_expired(run: Run, part: MonthPartition, archive: str | None) -> None:
    """Note that the month's rows are gone: links to them are true, though they lead nowhere."""
    await _note(
        run,
        part,
        {"expired_at": "now()", "restored_at": "NULL", "archive": ":archive"},
        archive=archive and without_password(archive),
    )


async def note_restored(run: Run, part: MonthPartition) -> None:
    """Note that the month is back, and stays until it is released."""
    await _note(run, part, {"expired_at": "NULL", "restored_at": "now()"})


async def note_payload_restored(run: Run, part: MonthPartition) -> None:
    """Note that the month's payload is back, and stays until the month is released."""
    await _note(run, part, {"restored_at": "now()", "payload_expired_at": "NULL"})


async def note_released(run: Run, part: MonthPartition) -> None:
    """Note that a month that was brought back may expire again."""
    await _note(run, part, {"restored_at": "NULL"})


async def note_payload_expired(run: Run, part: MonthPartition) -> None:
    """Note that the month's rows have lost their payload."""
    await _note(run, part, {"payload_expired_at": "now()"})


async def _note(
    run: Run,
    part: MonthPartition,
    changes: dict[str, str],
    **parameters: str | None,
) -> None:
    template = _NOTE.format(
        states="{states}",
        columns=", ".join(changes),
        values=", ".join(changes.values()),
        updates=", ".join(f"{column} = EXCLUDED.{column}" for column in changes),
    )
    noted = statement_with(template, states=run.schema.qualified(STATES))
    identity = {"table": part.table.name, "month": part.month.day, **part.keys}
    await run.connection.execute(noted, identity | parameters)
