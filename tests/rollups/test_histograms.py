"""Percentiles of a histogram are within one per cent of those of its values, merged or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, Integer, Numeric, Text, cast, column, func, literal, select, union_all

from agentobs.rollups.histogram import histogram_of, percentiles_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

SHARES = (0.0, 0.01, 0.5, 0.95, 0.99, 1.0)
LARGEST = 2**31 - 1
VALUES = st.lists(
    st.integers(0, LARGEST) | st.integers(0, 300) | st.sampled_from([0, 1, 100, 101, LARGEST]),
    min_size=1,
    max_size=200,
)


def select_histogram(values: Sequence[int]) -> Select[tuple[object]]:
    found = func.unnest(literal(list(values), ARRAY(Integer))).table_valued(
        column("value", Integer), name="found"
    )
    return select(histogram_of(found.render_derived().c.value).label("histogram"))


async def histogram(session: AsyncSession, *parts: Sequence[int]) -> str:
    each = union_all(*(select_histogram(values) for values in parts)).subquery()
    merged = select(cast(func.sum(each.c.histogram), Text))
    found: str = (await session.execute(merged)).scalar_one()
    return found


async def percentiles_disc(session: AsyncSession, values: Sequence[int]) -> list[int]:
    found = func.unnest(literal(list(values), ARRAY(Integer))).column_valued("value")
    statement = select(*(func.percentile_disc(share).within_group(found.asc()) for share in SHARES))
    return list((await session.execute(statement)).one())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(VALUES, min_size=1, max_size=4))
async def test_percentiles_are_within_one_per_cent(
    session: AsyncSession, parts: list[list[int]]
) -> None:
    values = [value for part in parts for value in part]
    expected = await percentiles_disc(session, values)

    found = percentiles_of(await histogram(session, *parts), SHARES)

    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= 0.01 * other


@pytest.mark.parametrize("value", [0, 1, 2, 50, 99, 100, 101, 102, 5000, 10**6, LARGEST])
async def test_one_value_comes_back_and_a_small_one_exactly(
    session: AsyncSession, value: int
) -> None:
    (found,) = percentiles_of(await histogram(session, [value]), [0.5])

    assert abs(found - value) <= 0.01 * value
    if value <= 100:
        assert found == value


async def test_each_edge_between_bins_is_within_one_per_cent(session: AsyncSession) -> None:
    edges = sorted(
        {
            min(LARGEST, max(0, round(1.01**power) + step))
            for power in range(2170)
            for step in (-1, 0, 1)
            if 1.01**power < LARGEST
        }
    )
    found = (
        func.unnest(literal(edges, ARRAY(Integer)))
        .table_valued(column("value", Integer), name="found")
        .render_derived()
    )
    statement = select(found.c.value, cast(histogram_of(found.c.value), Text)).group_by(
        found.c.value
    )

    for value, text in await session.execute(statement):
        (one,) = percentiles_of(text, [0.5])
        assert abs(one - value) <= 0.01 * value


async def test_times_below_zero_count_as_zero(session: AsyncSession) -> None:
    assert percentiles_of(await histogram(session, [-5, -1, 7]), [0.5, 1.0]) == [0, 7]


async def test_a_bin_holds_more_rows_than_there_will_ever_be(session: AsyncSession) -> None:
    one, other = await histogram(session, [1000]), await histogram(session, [5])
    most = literal(10**12 - 1, Numeric)
    merged = most * cast(literal(one, Text), Numeric) + cast(literal(other, Text), Numeric)

    text: str = (await session.execute(select(cast(merged, Text)))).scalar_one()

    assert percentiles_of(text, [0.0, 0.5]) == [5, *percentiles_of(one, [0.5])]
