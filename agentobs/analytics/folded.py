"""Ask the rollups where they reach: the same answers, without a look at millions of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, cast, func

from agentobs.analytics.results import execute, read_rows
from agentobs.rollups import Shape, Span, select_is_folded

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession


async def read_folded(
    session: AsyncSession, shape: Shape, span: Span, statement: Select[Any]
) -> list[dict[str, Any]] | None:
    """Return the rows of a statement over the merged rollups; None where only rows can answer.

    That is where less than half of the span is folded and nothing is kept of it, and where policies
    hide rows. The percentiles come by their names, those of several hours within one per cent.
    """
    family = shape.family
    if not span.has_hours:
        return None
    values = span.values
    if not (await execute(session, select_is_folded(family), values)).scalar_one():
        return None
    found = await read_rows(session, statement, values)
    return [row | family.percentiles_of(row) for row in found]


def percentile_sources(shape: Shape, merged: Any) -> list[ColumnElement[Any]]:
    """Return the columns from which `read_folded` makes the percentiles."""
    names = [*shape.family.percentiles]
    for measure in shape.family.measures:
        names += [measure.histogram, f"{measure.name}_rows", f"{measure.name}_sum"]
    return [merged.c[name] for name in names]


def count_of(total: ColumnElement[Any]) -> ColumnElement[int]:
    """Return a count that was added up, as a whole number."""
    return cast(total, BigInteger)


def ratio(total: ColumnElement[Any], rows: ColumnElement[Any]) -> ColumnElement[float]:
    """Return the mean as the server's `avg()` has it: divided exactly, then a float."""
    return cast(total / func.nullif(rows, 0), Double)
