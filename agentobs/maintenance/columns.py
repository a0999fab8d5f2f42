"""The columns of a table, as rows are written and compared with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.maintenance.statements import statement_with
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
_COUNT_DIFFERING = """
    SELECT count(*) FROM ONLY {one} AS a JOIN ONLY {other} AS b USING (id)
    WHERE id >= :lower AND id < :upper AND {differ}
"""


async def columns_of(run: Run, table: str) -> list[str]:
    """Return the columns that a row is written with, quoted, in order; no generated ones."""
    found = await run.connection.scalars(_COLUMNS, {"table": run.schema.qualified(table)})
    return [quoted(name) for name in found]


async def count_differing(run: Run, part: MonthPartition, one: str, other: str) -> int:
    """Count the rows of a month that two tables have with one id and another content."""
    # By name, for the tables may have their columns in another order.
    names = await columns_of(run, part.table.name)
    rows = [f"CAST(ROW({', '.join(f'{side}.{name}' for name in names)}) AS text)" for side in "ab"]
    differing = statement_with(
        _COUNT_DIFFERING,
        one=run.schema.qualified(one),
        other=run.schema.qualified(other),
        differ=" <> ".join(rows),
    )
    return await run.connection.scalar(differing, part.keys) or 0
