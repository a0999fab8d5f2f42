"""A row and its key are made together, whichever way a row is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import StatementError
from support.models import new_event, new_metric, required_of_an_event, statements_of

from agentobs import AgentTransformationEvent as Event
from agentobs import MetricType
from agentobs import RouterPerformanceMetric as Metric
from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH, instant_of, uuid7_at, uuid7_floor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    Make = Callable[..., Event | Metric]
    Row = dict[str, Any]
    Write = Callable[[AsyncSession, list[Row]], Awaitable[object]]

LONG_AGO = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
TABLE = Event.metadata.tables["agent_transformation_events"]
DAY = timedelta(days=1)
IN_1969 = EPOCH - timedelta(microseconds=1)

KINDS = pytest.mark.parametrize(
    ("maker", "instant"), [(new_event, "started_at"), (new_metric, "measured_at")]
)


def row_of_an_event(**values: Any) -> Row:
    return required_of_an_event() | values


async def stored_events(session: AsyncSession) -> list[tuple[UUID, datetime]]:
    """Return key and instant of every event, by the order of keys."""
    found = await session.execute(select(Event.id, Event.started_at).order_by(Event.id))
    return [(key, instant) for key, instant in found]


async def write_by_unit_of_work(session: AsyncSession, rows: list[Row]) -> None:
    session.add_all([Event(**row) for row in rows])
    await session.flush()


async def write_by_bulk_insert(session: AsyncSession, rows: list[Row]) -> None:
    await session.execute(insert(Event), rows)


async def write_by_executemany(session: AsyncSession, rows: list[Row]) -> None:
    await (await session.connection()).execute(insert(TABLE), rows)


async def write_by_values(session: AsyncSession, rows: list[Row]) -> None:
    await session.execute(insert(Event).values(rows))


async def write_by_values_of_the_table(session: AsyncSession, rows: list[Row]) -> None:
    await session.execute(insert(TABLE).values(rows))


async def write_one_by_one(session: AsyncSession, rows: list[Row]) -> None:
    for row in rows:
        await session.execute(insert(Event).values(**row))


EVERY_WAY = pytest.mark.parametrize(
    "write",
    [
        write_by_unit_of_work,
        write_by_bulk_insert,
        write_by_executemany,
        write_by_values,
        write_by_values_of_the_table,
        write_one_by_one,
    ],
)
# A list of parameters has the keys of its first row, for SQLAlchemy; these take each row as it is.
EVERY_WAY_OF_ROWS_THAT_DIFFER = pytest.mark.parametrize(
    "write",
    [
        write_by_unit_of_work,
        write_by_bulk_insert,
        write_by_values,
        write_by_values_of_the_table,
        write_one_by_one,
    ],
)


@KINDS
async def test_a_new_row_has_its_key_and_its_instant_together_by_one_insert(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    row = maker()
    session.add(row)

    with statements_of(session) as sent:
        await session.flush()

        assert instant_of(row.id) == getattr(row, instant)
    assert sent == ["INSERT"]


@KINDS
async def test_a_row_of_the_past_has_a_key_of_the_past(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    row = maker(**{instant: LONG_AGO})
    session.add(row)

    with statements_of(session) as sent:
        await session.flush()

        assert instant_of(row.id) == LONG_AGO
    assert sent == ["INSERT"]


@KINDS
@pytest.mark.parametrize("form", [UUID, str], ids=["uuid", "text"])
async def test_a_row_takes_its_instant_from_the_key_that_it_is_given(
    session: AsyncSession,
    maker: Make,
    instant: str,
    form: Callable[[str], object],
) -> None:
    key = uuid7_at(LONG_AGO)
    row = maker(id=form(str(key)))
    session.add(row)

    with statements_of(session) as sent:
        await session.flush()

        assert row.id == key
        assert getattr(row, instant) == LONG_AGO
    assert sent == ["INSERT"]


@KINDS
async def test_a_key_that_holds_no_instant_is_kept_and_the_row_is_of_now(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    key = uuid4()
    row = maker(id=key)
    session.add(row)
    await session.flush()

    assert row.id == key
    assert abs(getattr(row, instant) - datetime.now(UTC)) < timedelta(minutes=5)


@KINDS
async def test_a_key_and_an_instant_that_are_both_given_are_both_kept(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    key = uuid7_at(LONG_AGO)
    row = maker(**{"id": key, instant: LONG_AGO + DAY})
    session.add(row)
    await session.flush()
    await session.refresh(row)

    assert row.id == key
    assert getattr(row, instant) == LONG_AGO + DAY


@KINDS
async def test_what_is_stored_is_what_the_object_says(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    row = maker()
    session.add(row)
    await session.flush()
    made = getattr(row, instant)
    await session.refresh(row)

    assert getattr(row, instant) == made == instant_of(row.id)


@EVERY_WAY
async def test_rows_without_either_have_both_together(session: AsyncSession, write: Write) -> None:
    await write(session, [row_of_an_event() for _ in range(3)])

    stored = await stored_events(session)
    assert len(stored) == 3
    assert [instant_of(key) for key, _ in stored] == [instant for _, instant in stored]


@EVERY_WAY
async def test_each_row_has_the_key_of_its_own_instant(session: AsyncSession, write: Write) -> None:
    # More than ten, whose parameters have numbers of one and of two digits.
    instants = [LONG_AGO + number * DAY for number in range(12)]
    await write(session, [row_of_an_event(started_at=each) for each in reversed(instants)])

    stored = await stored_events(session)
    assert [instant for _, instant in stored] == instants
    assert [instant_of(key) for key, _ in stored] == instants


@EVERY_WAY
@pytest.mark.parametrize("form", [UUID, str], ids=["uuid", "text"])
async def test_each_row_has_the_instant_of_its_own_key(
    session: AsyncSession, write: Write, form: Callable[[str], object]
) -> None:
    keys = [uuid7_at(LONG_AGO + number * DAY) for number in range(12)]
    await write(session, [row_of_an_event(id=form(str(key))) for key in reversed(keys)])

    assert await stored_events(session) == [(key, instant_of(key)) for key in keys]


@EVERY_WAY
async def test_foreign_keys_of_many_rows_are_kept(session: AsyncSession, write: Write) -> None:
    keys = sorted(uuid4() for _ in range(3))
    await write(session, [row_of_an_event(id=key) for key in keys])

    assert [key for key, _ in await stored_events(session)] == keys


@EVERY_WAY_OF_ROWS_THAT_DIFFER
@pytest.mark.parametrize("first", [0, 1, 2, 3], ids=["neither", "key", "instant", "both"])
async def test_rows_that_are_given_different_things_do_not_mix_them_up(
    session: AsyncSession, write: Write, first: int
) -> None:
    key, other = uuid7_at(LONG_AGO), uuid7_at(LONG_AGO + 2 * DAY)
    given: list[Row] = [
        {},
        {"id": key},
        {"started_at": LONG_AGO + DAY},
        {"id": other, "started_at": LONG_AGO + 2 * DAY},
    ]
    rows = [row_of_an_event(**values) for values in given[first:] + given[:first]]
    await write(session, rows)

    stored = await stored_events(session)
    assert all(instant_of(each) == instant for each, instant in stored)
    assert [instant for _, instant in stored[:3]] == [LONG_AGO + n * DAY for n in range(3)]
    assert (stored[0][0], stored[2][0]) == (key, other)


@EVERY_WAY
async def test_an_instant_before_1970_is_refused_by_its_column(
    session: AsyncSession, write: Write
) -> None:
    with pytest.raises(InvalidValueError, match="must not lie before 1970") as caught:
        await write(
            session, [row_of_an_event(started_at=LONG_AGO), row_of_an_event(started_at=IN_1969)]
        )

    assert caught.value.column == "agent_transformation_events.started_at"


@EVERY_WAY
async def test_a_naive_instant_is_refused_by_its_column(
    session: AsyncSession, write: Write
) -> None:
    naive = datetime(2025, 1, 1)  # noqa: DTZ001

    with pytest.raises(InvalidValueError, match="must have a time zone") as caught:
        await write(session, [row_of_an_event(started_at=naive)])

    assert caught.value.column == "agent_transformation_events.started_at"


async def test_a_refused_instant_of_a_statement_is_an_error_of_sqlalchemy_too(
    session: AsyncSession,
) -> None:
    with pytest.raises(StatementError):
        await session.execute(insert(Event).values(**row_of_an_event(started_at=IN_1969)))


@pytest.mark.parametrize(
    ("maker", "column"),
    [
        (new_event, "agent_transformation_events.started_at"),
        (new_metric, "router_performance_metrics.measured_at"),
    ],
)
def test_an_instant_before_1970_is_refused_where_it_is_assigned(maker: Make, column: str) -> None:
    row, name = maker(), column.partition(".")[2]

    with pytest.raises(InvalidValueError, match="must not lie before 1970") as caught:
        setattr(row, name, IN_1969)
    setattr(row, name, EPOCH)

    assert caught.value.column == column
    assert getattr(row, name) == EPOCH


def test_an_instant_before_1970_that_is_no_rows_key_is_taken() -> None:
    assert new_metric(validated_at=IN_1969).validated_at == IN_1969


async def test_a_row_whose_instant_the_server_makes_has_a_key_of_now(session: AsyncSession) -> None:
    event = new_event(started_at=func.now())
    session.add(event)

    await session.flush()

    assert event.started_at == await session.scalar(select(func.now()))
    assert abs(instant_of(event.id) - event.started_at) < timedelta(minutes=5)


async def test_an_upsert_makes_a_row_with_both_and_leaves_them_where_the_row_is_there(
    session: AsyncSession,
) -> None:
    key = uuid7_at(LONG_AGO)
    upsert = insert(Event).on_conflict_do_update(index_elements=["id"], set_={"success": True})

    for _ in range(2):
        await session.execute(upsert.values(**row_of_an_event(id=key)))

    assert await stored_events(session) == [(key, LONG_AGO)]
    assert await session.scalar(select(Event.success)) is True


async def test_an_upsert_of_many_rows_adds_only_those_that_are_new(session: AsyncSession) -> None:
    keys = [uuid7_at(LONG_AGO + number * DAY) for number in range(4)]
    ignoring = insert(Event).on_conflict_do_nothing(index_elements=["id"])

    for chosen in (keys[:2], keys):
        await session.execute(ignoring.values([row_of_an_event(id=key) for key in chosen]))

    assert await stored_events(session) == [(key, instant_of(key)) for key in keys]


async def test_a_merge_makes_the_row_and_finds_it_by_its_key_the_next_time(
    session: AsyncSession,
) -> None:
    key = uuid7_at(LONG_AGO)
    await session.merge(new_event(id=key))
    await session.flush()
    session.expunge_all()

    await session.merge(new_event(id=key, success=True))
    await session.flush()

    assert await stored_events(session) == [(key, LONG_AGO)]


async def test_a_merge_without_a_key_makes_a_key_of_the_instant(session: AsyncSession) -> None:
    merged = await session.merge(new_event(started_at=LONG_AGO))
    await session.flush()

    assert instant_of(merged.id) == LONG_AGO


@KINDS
async def test_a_thousand_objects_are_a_few_statements(
    session: AsyncSession, maker: Make, instant: str
) -> None:
    rows = [maker(**{instant: LONG_AGO + number * DAY}) for number in range(1000)]
    session.add_all(rows)

    with statements_of(session) as sent:
        await session.flush()

    assert set(sent) == {"INSERT"}
    assert len(sent) <= 10
    keys = [row.id for row in rows]
    assert [instant_of(key) for key in keys] == [getattr(row, instant) for row in rows]


async def test_the_order_of_keys_is_the_order_in_which_things_began(session: AsyncSession) -> None:
    instants = [LONG_AGO + timedelta(microseconds=number * 7 % 100) for number in range(100)]
    session.add_all([new_metric(measured_at=instant) for instant in instants])
    await session.flush()

    by_key = await session.scalars(select(Metric.measured_at).order_by(Metric.id))

    assert list(by_key) == sorted(instants)


async def test_a_range_of_keys_is_a_window_of_time(session: AsyncSession) -> None:
    began = [LONG_AGO + number * DAY for number in range(5)]
    session.add_all([new_event(started_at=instant) for instant in began])
    await session.flush()
    window = Event.id >= uuid7_floor(began[1]), Event.id < uuid7_floor(began[3])

    found = await session.scalars(select(Event.started_at).where(*window).order_by(Event.id))

    assert list(found) == began[1:3]


@given(st.datetimes(min_value=datetime(1970, 1, 3), timezones=st.timezones()))  # noqa: DTZ001
def test_every_instant_from_1970_on_is_taken_as_it_is(instant: datetime) -> None:
    assert new_event(started_at=instant).started_at is instant
    assert Metric(metric_type=MetricType.CACHE_HIT, measured_at=instant).measured_at is instant
