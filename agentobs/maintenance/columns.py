"""The columns of a table, as rows are written and compared with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

_COLUMNS = text(
    """
    SELECT attname FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass) AND attnum > 0
      AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum
    """
)


async def columns_of(run: Run, table: str) -> list[str]:
    """Return the columns that a row is written with, quoted, in order; no generated ones."""
    found = await run.connection.scalars(_COLUMNS, {"table": run.schema.qualified(table)})
    return [quoted(name) for name in found]


async def count_differing(run: Run, part: MonthPartition, one: str, other: str) -> int:
    """Count the rows of a month that two tables have with one id and another content."""
    # By name, for the tables may have their columns in another order.
    names = await columns_of(run, part.table.name)
    rows = [f"CAST(ROW({', '.join(f'{side}.{name}' for name in names)}) AS text)" for side in "ab"]
    statement = text(
        f"SELECT count(*) FROM ONLY {run.schema.qualified(one)} AS a "  # noqa: S608
        f"JOIN ONLY {run.schema.qualified(other)} AS b USING (id) "
        f"WHERE id >= :lower AND id < :upper AND {' <> '.join(rows)}"
    )
    return await run.connection.scalar(statement, part.keys) or 0
