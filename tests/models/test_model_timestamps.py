from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import ColumnElement, Interval, bindparam, func, insert, select, tuple_, update
from sqlalchemy.exc import StatementError
from support.models import new_event, required_of_an_event

from agentobs import AgentTransformationEvent as Event
from agentobs import RouterPerformanceMetric
from agentobs.models.types import AwareTimestamp

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001 (a naive one is what the tests are about)
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def noon_event(session: AsyncSession) -> Event:
    event = new_event(started_at=NOON, completed_at=NOON + timedelta(seconds=90))
    session.add(event)
    await session.flush()
    return event


@pytest.mark.parametrize(
    "condition",
    [
        Event.started_at > NAIVE,
        Event.started_at == NAIVE,
        Event.started_at.in_([NOON, NAIVE]),
        Event.started_at.between(NAIVE, NOON),
        Event.started_at - timedelta(days=1) > NAIVE,
        func.coalesce(Event.completed_at, Event.started_at) > NAIVE,
        tuple_(Event.started_at, Event.id) > (NAIVE, UUID(int=0)),
    ],
    ids=["greater", "equal", "in", "between", "shifted", "coalesce", "tuple"],
)
async def test_a_naive_datetime_in_a_where_clause_is_refused(
    session: AsyncSession, condition: ColumnElement[bool]
) -> None:
    with pytest.raises(StatementError, match="must have a time zone, got a naive datetime"):
        await session.execute(select(Event.id).where(condition))


async def test_a_naive_datetime_for_a_named_parameter_is_refused(session: AsyncSession) -> None:
    query = select(Event.id).where(Event.started_at > bindparam("since"))

    with pytest.raises(StatementError, match="must have a time zone"):
        await session.execute(query, {"since": NAIVE})


async def test_a_date_in_a_where_clause_is_refused_for_its_midnight_depends_on_the_zone(
    session: AsyncSession,
) -> None:
    with pytest.raises(StatementError, match="must be a datetime, got date"):
        await session.execute(select(Event.id).where(Event.started_at > date(2025, 1, 1)))


@pytest.mark.parametrize("column", ["started_at", "completed_at"])
async def test_a_naive_datetime_in_a_core_insert_is_refused(
    session: AsyncSession, column: str
) -> None:
    rows: list[dict[str, Any]] = [required_of_an_event() | {column: NAIVE}]

    with pytest.raises(StatementError, match="must have a time zone"):
        await session.execute(insert(Event), rows)


async def test_a_naive_datetime_in_a_core_update_is_refused(session: AsyncSession) -> None:
    with pytest.raises(StatementError, match="must have a time zone"):
        await session.execute(update(RouterPerformanceMetric).values(validated_at=NAIVE))


async def test_a_window_that_ends_now_is_asked_for_with_the_clock_of_the_server(
    session: AsyncSession,
) -> None:
    recent, old = new_event(), new_event(started_at=datetime.now(UTC) - timedelta(days=8))
    session.add_all([recent, old])
    await session.flush()

    found = await session.scalars(
        select(Event.id).where(Event.started_at > func.now() - timedelta(days=7))
    )

    assert found.all() == [recent.id]


async def test_a_duration_is_a_timedelta(session: AsyncSession, noon_event: Event) -> None:
    duration = Event.completed_at - Event.started_at

    assert isinstance(duration.type, Interval)
    assert await session.scalar(select(duration)) == timedelta(seconds=90)
    assert (
        await session.scalar(select(Event.id).where(duration > timedelta(minutes=1)))
        == noon_event.id
    )


@pytest.mark.parametrize(
    ("shifted", "expected"),
    [
        (Event.started_at + timedelta(hours=1), NOON + timedelta(hours=1)),
        (Event.started_at - timedelta(hours=1), NOON - timedelta(hours=1)),
    ],
)
async def test_an_instant_that_is_shifted_stays_an_instant(
    session: AsyncSession,
    noon_event: Event,
    shifted: ColumnElement[datetime],
    expected: datetime,
) -> None:
    assert isinstance(shifted.type, AwareTimestamp)
    assert await session.scalar(select(shifted)) == expected
    assert await session.scalar(select(Event.id).where(shifted >= expected)) == noon_event.id


async def test_the_distance_to_an_instant_of_python_is_a_timedelta(
    session: AsyncSession, noon_event: Event
) -> None:
    assert noon_event.started_at == NOON
    distance = await session.scalar(select(Event.started_at - (NOON - timedelta(minutes=1))))

    assert distance == timedelta(minutes=1)
