"""What revision 0005 makes: a partition of each month of UTC, and one for all other rows."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import NullPool, text
from support.catalog_snapshot import read_catalog
from support.event_rows import (
    EVENTS,
    FEBRUARY,
    INSTANTS,
    PARENT_KEY,
    REQUIRED,
    insert_row,
    partition_of,
    rows_of,
)
from support.models import new_event, new_metric
from support.shell import REPOSITORY, connect_in_transaction, psql

from agentobs import AgentTransformationEvent, RouterPerformanceMetric, create_engine, migrations
from agentobs.errors import ConstraintError
from agentobs.keys import EPOCH, uuid7_at, uuid7_floor
from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from agentobs import DatabaseSettings

    Place = Callable[[str, UUID, datetime], str]

MICROSECOND = timedelta(microseconds=1)
# Every month of a leap year, and one after it.
FIRSTS = [datetime(2024, month, 1, tzinfo=UTC) for month in range(1, 13)]
FIRSTS.append(datetime(2025, 1, 1, tzinfo=UTC))
PARTS = text(
    """
    SELECT relname, pg_get_expr(relpartbound, c.oid) FROM pg_class c
    JOIN pg_inherits ON inhrelid = c.oid WHERE inhparent = to_regclass(:table) ORDER BY relname
    """
)


def name_of(first: datetime) -> str:
    return f"y{first:%Y}m{first:%m}"


def month_after(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


def bounds_of(first: datetime) -> str:
    return f"FOR VALUES FROM ('{uuid7_floor(first)}') TO ('{uuid7_floor(month_after(first))}')"


async def months_of(connection: AsyncConnection, table: str = EVENTS) -> dict[str, str]:
    """Return the ends of the partitions' names in their order, each with its bounds."""
    rows = await connection.execute(PARTS, {"table": table})
    return {name.removeprefix(f"{table}_"): bounds for name, bounds in rows}


@pytest_asyncio.fixture
async def at_0004(empty: DatabaseSettings, connection: AsyncConnection) -> AsyncConnection:
    await migrations.upgrade("0004", settings=empty)
    return connection


@pytest.fixture(scope="module")
def shared_0005(agentobs_server: URL) -> Iterator[DatabaseSettings]:
    """Yield the settings of a database at 0005 with the months of FIRSTS; no test commits."""
    with temporary_database(agentobs_server) as name:
        found = settings_for(agentobs_server, name)
        run(_make_months(found))
        yield found


async def _make_months(found: DatabaseSettings) -> None:
    await migrations.upgrade("0004", settings=found)
    async with connect_in_transaction(found) as connection:
        for table, instant in INSTANTS.items():
            for first in FIRSTS:
                await insert_row(connection, table, **{instant: first})
        await connection.commit()
    await migrations.upgrade("0005", settings=found)


@pytest_asyncio.fixture
async def at_0005(shared_0005: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a transaction in the database at 0005, which is rolled back."""
    async with connect_in_transaction(shared_0005) as found:
        yield found


@pytest.fixture(scope="module")
def place(shared_0005: DatabaseSettings) -> Iterator[Place]:
    """Yield what inserts a row with a key and an instant, and tells in which partition it lay."""
    with asyncio.Runner() as runner:
        engine = create_engine(shared_0005, poolclass=NullPool)
        connection = runner.run(_open(engine.connect()))

        async def insert(table: str, key: UUID, instant: datetime) -> str:
            try:
                await insert_row(connection, table, id=key, **{INSTANTS[table]: instant})
                return await partition_of(connection, key, table)
            finally:
                await connection.rollback()

        yield lambda table, key, instant: runner.run(insert(table, key, instant))
        runner.run(connection.close())
        runner.run(engine.dispose())


async def _open(connecting: AsyncConnection) -> AsyncConnection:
    return await connecting


@pytest.mark.parametrize("table", INSTANTS)
async def test_an_empty_table_gets_this_month_the_next_three_and_default(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    await migrations.upgrade("0005", settings=empty)

    first = (await at_0004.scalar(text("SELECT now()"))).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    firsts = [first]
    for _ in range(3):
        firsts.append(month_after(firsts[-1]))
    wanted = {name_of(each): bounds_of(each) for each in firsts}
    assert await months_of(at_0004, table) == {"default": "DEFAULT"} | wanted


@pytest.mark.parametrize("table", INSTANTS)
async def test_each_month_that_has_rows_is_a_partition_from_its_first_to_the_next_first(
    at_0005: AsyncConnection, table: str
) -> None:
    found = await months_of(at_0005, table)

    assert {name: found[name] for name in map(name_of, FIRSTS)} == {
        name_of(first): bounds_of(first) for first in FIRSTS
    }
    assert list(found)[1:] == sorted(name for name in found if name != "default")


@pytest.mark.parametrize("table", INSTANTS)
async def test_the_check_of_a_month_leaves_a_day_of_slack(
    at_0005: AsyncConnection, table: str
) -> None:
    name = f"{table}_y2024m02"
    query = text(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = to_regclass(:table) AND conname = :name"
    )
    await at_0005.execute(text("SET LOCAL timezone = 'UTC'"))

    check = await at_0005.scalar(query, {"table": name, "name": f"{name}_{INSTANTS[table]}_check"})

    assert re.findall(r"'([^']+)'", check) == ["2024-01-31 00:00:00+00", "2024-03-02 00:00:00+00"]


@pytest.mark.parametrize("table", INSTANTS)
async def test_a_partitioned_table_has_the_columns_keys_and_checks_of_the_table_before(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    before = await read_catalog(at_0004)
    await migrations.upgrade("0005", settings=empty)
    after = await read_catalog(at_0004)

    for kind in ("tables", "columns", "constraints"):
        lost = {row for row in before[kind] if row[0] == table} - set(after[kind])
        assert {row[1] for row in lost} <= {PARENT_KEY}, kind
    former = (REPOSITORY / "alembic/versions/0005_former_indexes.sql").read_text()
    names = {row[1] for row in before["indexes"]} - set(re.findall(r"idx_\w+", former))
    assert names <= {row[1] for row in after["indexes"]}
    keys = {row for row in after["constraints"] if row[1] == f"{table}_pkey"}
    assert keys == {(table, f"{table}_pkey", "PRIMARY KEY (id)")}


@pytest.mark.parametrize("table", INSTANTS)
async def test_every_partition_says_what_it_holds(at_0005: AsyncConnection, table: str) -> None:
    comment = text("SELECT obj_description(to_regclass(:name), 'pg_class')")

    for name, about in (("y2024m02", "of 2024-02"), ("default", "that no month takes")):
        found = await at_0005.scalar(comment, {"name": f"{table}_{name}"})
        assert found == f"The rows of {table} {about}"


@pytest.mark.parametrize("table", INSTANTS)
@pytest.mark.parametrize("first", FIRSTS, ids=name_of)
def test_the_last_microsecond_of_a_month_is_of_it_and_the_next_is_of_the_next(
    place: Place, table: str, first: datetime
) -> None:
    last = month_after(first) - MICROSECOND

    assert place(table, uuid7_at(first), first) == name_of(first)
    assert place(table, uuid7_at(last), last) == name_of(first)
    assert place(table, uuid7_floor(first), first) == name_of(first)


@pytest.mark.parametrize("table", INSTANTS)
@settings(deadline=None, max_examples=60)
@given(
    instant=st.datetimes(
        min_value=FIRSTS[0].replace(tzinfo=None),
        max_value=FIRSTS[-1].replace(day=31, tzinfo=None),
        timezones=st.just(UTC),
    ),
    skew=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=1) - MICROSECOND),
)
def test_any_instant_lies_in_the_month_of_its_key_also_when_clocks_differ(
    place: Place, table: str, instant: datetime, skew: timedelta
) -> None:
    assert place(table, uuid7_at(instant), instant + skew) == name_of(instant)


@settings(deadline=None, max_examples=60)
@given(st.datetimes(min_value=EPOCH.replace(tzinfo=None), timezones=st.just(UTC)))
def test_an_instant_without_a_partition_is_taken_by_default(
    place: Place, instant: datetime
) -> None:
    lies_in = place(EVENTS, uuid7_at(instant), instant)

    assert lies_in in {"default", name_of(instant)}


@pytest.mark.parametrize("table", INSTANTS)
@pytest.mark.parametrize("instant", ["-infinity", "infinity", "1969-12-31", "2024-02-15"])
async def test_a_foreign_id_is_taken_by_default_with_any_instant(
    at_0005: AsyncConnection, table: str, instant: str
) -> None:
    # Above those of all months, as most random ids are.
    key = UUID(f"f{str(uuid4())[1:]}")
    await insert_row(at_0005, table, id=key, **{INSTANTS[table]: instant})

    assert await partition_of(at_0005, key, table) == "default"


@pytest.mark.parametrize("model", [new_event, new_metric], ids=["event", "metric"])
async def test_a_key_with_an_instant_of_another_month_is_refused_with_the_fix(
    session: AsyncSession, model: Callable[..., AgentTransformationEvent | RouterPerformanceMetric]
) -> None:
    now = await session.scalar(text("SELECT now()"))
    assert now is not None
    instant = "started_at" if model is new_event else "measured_at"
    session.add(model(id=uuid7_at(now), **{instant: now - timedelta(days=60)}))

    with pytest.raises(ConstraintError, match=r"different months: .*uuid7_at\(\)") as caught:
        await session.flush()

    assert caught.value.sqlstate == "23514"


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Pacific/Apia"])
async def test_months_are_those_of_utc_whatever_the_servers_time_zone_is(
    empty: DatabaseSettings, at_0004: AsyncConnection, zone: str
) -> None:
    database = await at_0004.scalar(text("SELECT current_database()"))
    for setting in (f"timezone = '{zone}'", "datestyle = 'SQL, DMY'"):
        await at_0004.execute(text(f'ALTER DATABASE "{database}" SET {setting}'))
    # Hours that are another month there, and those of the clocks' changes.
    edges = [datetime(2025, 3, 31, 23, 30, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC),
             datetime(2011, 12, 31, 0, 30, tzinfo=UTC)]  # fmt: skip
    for instant in edges:
        await insert_row(at_0004, started_at=instant)

    await migrations.upgrade("0005", settings=empty)

    found = await months_of(at_0004)
    for instant in edges:
        first = instant.replace(day=1, hour=0, minute=0)
        assert found[name_of(first)] == bounds_of(first)
    assert await at_0004.scalar(text(f"SELECT count(*) FROM {EVENTS}_default")) == 0


@pytest.mark.parametrize("table", INSTANTS)
async def test_months_between_those_of_the_rows_are_not_made(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    await insert_row(at_0004, table, **{INSTANTS[table]: FEBRUARY})
    await insert_row(at_0004, table, **{INSTANTS[table]: EPOCH})

    await migrations.upgrade("0005", settings=empty)

    assert list(await months_of(at_0004, table))[:3] == ["default", "y1970m01", "y2024m02"]


@pytest.mark.parametrize("model", [AgentTransformationEvent, RouterPerformanceMetric])
async def test_a_look_up_by_key_touches_one_partition(
    session: AsyncSession, model: type[AgentTransformationEvent | RouterPerformanceMetric]
) -> None:
    now = await session.scalar(text("SELECT now()"))
    assert now is not None
    await session.rollback()

    await session.get(model, uuid7_at(now))

    touched = text(
        "SELECT relation::regclass::text FROM pg_locks JOIN pg_inherits ON inhrelid = relation "
        "JOIN pg_class ON pg_class.oid = relation WHERE pid = pg_backend_pid() AND relkind = 'r'"
    )
    assert (await session.scalars(touched)).all() == [f"{model.__tablename__}_{name_of(now)}"]


async def test_psql_does_with_the_printed_sql_what_the_upgrade_does(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    for table, instant in INSTANTS.items():
        for when in (FEBRUARY, "infinity"):
            await insert_row(at_0004, table, **{instant: when})
    await migrations.upgrade("0005", settings=empty)
    wanted = await read_catalog(at_0004), [await rows_of(at_0004, table) for table in INSTANTS]
    await migrations.downgrade("0004", settings=empty)

    done = psql(empty, migrations.sql("0004:0005", settings=empty))

    assert (done.returncode, done.stderr) == (0, "")
    found = await read_catalog(at_0004), [await rows_of(at_0004, table) for table in INSTANTS]
    assert found == wanted


async def test_psql_does_the_downgrade_too(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    original = await insert_row(at_0004)
    before = await read_catalog(at_0004)
    await migrations.upgrade("0005", settings=empty)

    done = psql(empty, migrations.sql("0005:0004", downgrade=True, settings=empty))

    assert done.returncode == 0, done.stderr
    assert await read_catalog(at_0004) == before
    assert (await at_0004.scalars(text(f"SELECT id FROM {EVENTS}"))).all() == [original]


async def test_the_least_row_of_each_table_needs_neither_key_nor_instant(
    at_0005: AsyncConnection,
) -> None:
    now = await at_0005.scalar(text("SELECT now()"))
    for table in REQUIRED:
        key = await insert_row(at_0005, table)

        assert await partition_of(at_0005, key, table) == name_of(now)
