"""What revision 0004 does: keys that hold their instant, made by the server like by Python."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.shell import connect, connect_in_transaction

from agentobs import create_engine, migrations
from agentobs.errors import InvalidDataError
from agentobs.keys import EPOCH, instant_of, is_time_ordered, uuid7_floor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

    Ask = Callable[[str, list[datetime]], list[UUID]]

# What asyncpg takes for infinity is one microsecond later.
LAST = datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC)
INSTANTS = st.datetimes(
    min_value=EPOCH.replace(tzinfo=None),
    max_value=LAST.replace(tzinfo=None),
    timezones=st.just(UTC),
)
EDGES = [
    EPOCH,
    EPOCH + timedelta(microseconds=1),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2025, 3, 30, 1, tzinfo=UTC),
    datetime(2025, 10, 26, 1, tzinfo=UTC),
    LAST,
]
# One microsecond after the other, through a whole millisecond.
MILLISECOND = [EDGES[2].replace(microsecond=417_000 + number) for number in range(1000)]

# Each table with its instant, and the least that makes a row of it.
KINDS = {
    "agent_transformation_events": (
        "started_at",
        "(event_type, correlation_id, target_agent) VALUES ('x', gen_random_uuid(), 'x')",
    ),
    "router_performance_metrics": ("measured_at", "(metric_type) VALUES ('x')"),
}
ODD_SCHEMA = 'Host "Observability"'


def insert_into(table: str, schema: str = "public") -> str:
    """Return a plain INSERT that gives neither the key nor the instant, and returns both."""
    instant, values = KINDS[table]
    return f"INSERT INTO {schema}.{table} {values} RETURNING id, {instant}, now()"


@pytest_asyncio.fixture
async def at_0004(shared_0004: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a transaction in the database at 0004, which is rolled back."""
    async with connect_in_transaction(shared_0004) as found:
        yield found


@pytest.fixture(scope="module")
def ask(shared_0004: DatabaseSettings) -> Iterator[Ask]:
    """Yield what calls a function of the server on many instants."""
    with asyncio.Runner() as runner:
        engine = create_engine(shared_0004)

        async def of_all(function: str, instants: list[datetime]) -> list[UUID]:
            query = text(f"SELECT {function}(i) FROM unnest(CAST(:all AS timestamptz[])) i")
            async with engine.connect() as connection:
                return list((await connection.scalars(query, {"all": instants})).all())

        yield lambda function, instants: runner.run(of_all(function, instants))
        runner.run(engine.dispose())


@settings(deadline=None)
@given(st.lists(INSTANTS, min_size=1, max_size=50))
def test_the_floor_of_the_server_is_the_floor_of_python(ask: Ask, instants: list[datetime]) -> None:
    assert ask("agentobs_uuid7_floor", instants) == [uuid7_floor(each) for each in instants]


@settings(deadline=None)
@given(st.lists(INSTANTS, min_size=1, max_size=50))
def test_a_key_of_the_server_is_read_back_by_python(ask: Ask, instants: list[datetime]) -> None:
    assert [instant_of(key) for key in ask("agentobs_uuid7_at", instants)] == instants


@pytest.mark.parametrize("instants", [EDGES, MILLISECOND], ids=["edges", "microseconds"])
def test_the_server_agrees_with_python_at_the_edges(ask: Ask, instants: list[datetime]) -> None:
    assert ask("agentobs_uuid7_floor", instants) == [uuid7_floor(each) for each in instants]
    assert [instant_of(key) for key in ask("agentobs_uuid7_at", instants)] == instants


def test_the_keys_that_the_server_makes_of_one_instant_differ(ask: Ask) -> None:
    keys = ask("agentobs_uuid7_at", [EPOCH] * 2000)
    ever = never = 0
    for key in keys:
        ever |= key.int
        never |= ~key.int

    assert len(set(keys)) == 2000
    assert ever & never & (1 << 128) - 1 == (1 << 62) - 1


@pytest.mark.parametrize(
    ("instant", "floor"),
    [
        ("10000-01-01 00:00:00+00", "e677-d21fdc00-7000"),
        ("10889-08-02 05:31:50.655+00", "ffff-ffffffff-7000"),
        ("10889-08-02 05:31:50.655999+00", "ffff-ffffffff-7ffb"),
    ],
)
async def test_an_instant_that_python_does_not_know_has_a_key_too(
    at_0004: AsyncConnection, instant: str, floor: str
) -> None:
    key = (await at_0004.exec_driver_sql(f"SELECT agentobs_uuid7_floor('{instant}')")).scalar_one()

    assert key.hex == f"{floor}-8000000000000000".replace("-", "")


@pytest.mark.parametrize("function", ["agentobs_uuid7_at", "agentobs_uuid7_floor"])
@pytest.mark.parametrize(
    "instant",
    [
        "-infinity",
        "4713-01-01 00:00:00+00 BC",
        "1969-12-31 23:59:59.999999+00",
        "1970-01-01 00:59:59+01",
        "10889-08-02 05:31:50.656+00",
        "294276-12-31 23:59:59+00",
        "infinity",
    ],
)
async def test_an_instant_that_no_key_holds_is_refused(
    at_0004: AsyncConnection, function: str, instant: str
) -> None:
    query = text(f"SELECT {function}(CAST(CAST(:instant AS text) AS timestamptz))")

    with pytest.raises(InvalidDataError, match="time-ordered key") as caught:
        await at_0004.execute(query, {"instant": instant})

    assert caught.value.sqlstate == "22008"


@pytest.mark.parametrize("table", KINDS)
async def test_a_plain_insert_gets_its_key_and_its_instant_from_the_same_now(
    at_0004: AsyncConnection, table: str
) -> None:
    key, instant, now = (await at_0004.execute(text(insert_into(table)))).one()

    assert instant_of(key) == instant == now


@pytest.mark.parametrize("table", KINDS)
async def test_rows_of_one_plain_insert_have_keys_that_differ(
    at_0004: AsyncConnection, table: str
) -> None:
    instant, values = KINDS[table]
    columns, row = values.split(" VALUES ")
    rows = ", ".join([row] * 50)

    found = (
        await at_0004.execute(
            text(f"INSERT INTO {table} {columns} VALUES {rows} RETURNING id, {instant}")
        )
    ).all()
    assert len({key for key, _ in found}) == 50
    assert all(instant_of(key) == began for key, began in found)


@pytest.mark.parametrize("table", KINDS)
async def test_a_role_that_may_only_insert_needs_no_other_right(
    empty: DatabaseSettings, connection: AsyncConnection, table: str
) -> None:
    await connection.execute(
        text("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    )
    await migrations.upgrade("0004", settings=empty)
    role = f"writer_{uuid4().hex}"
    async with connect_in_transaction(empty) as owner:
        await owner.execute(text(f"CREATE ROLE {role}"))
        await owner.execute(text(f"GRANT INSERT ON {table} TO {role}"))
        await owner.execute(text(f"SET LOCAL ROLE {role}"))
        done = await owner.execute(text(insert_into(table).partition(" RETURNING")[0]))

    assert done.rowcount == 1


@pytest.mark.parametrize("table", KINDS)
async def test_an_insert_rests_on_no_search_path(at_0004: AsyncConnection, table: str) -> None:
    await at_0004.execute(text("SET LOCAL search_path = ''"))

    key, instant, _ = (await at_0004.execute(text(insert_into(table)))).one()

    assert instant_of(key) == instant


async def test_the_functions_rest_on_no_search_path(at_0004: AsyncConnection) -> None:
    await at_0004.execute(text("SET LOCAL search_path = ''"))

    floor = await at_0004.scalar(text("SELECT public.agentobs_uuid7_floor(now())"))
    now = await at_0004.scalar(text("SELECT now()"))

    assert floor == uuid7_floor(now)


@pytest.mark.parametrize("table", KINDS)
async def test_keys_are_made_in_the_schema_of_the_hosts_choice(
    empty: DatabaseSettings, connection: AsyncConnection, table: str
) -> None:
    await migrations.upgrade("0004", settings=empty.model_copy(update={"schema_name": ODD_SCHEMA}))
    schema = '"Host ""Observability"""'

    key, instant, _ = (await connection.execute(text(insert_into(table, schema)))).one()
    floor = await connection.scalar(text(f"SELECT {schema}.agentobs_uuid7_floor('epoch')"))

    assert instant_of(key) == instant
    assert floor == uuid7_floor(EPOCH)
    assert await connection.scalar(text("SELECT to_regproc('agentobs_uuid7_floor')")) is None


@pytest.mark.parametrize("table", KINDS)
async def test_keys_are_made_after_the_host_has_renamed_the_schema(
    empty: DatabaseSettings, connection: AsyncConnection, table: str
) -> None:
    await migrations.upgrade("0004", settings=empty.model_copy(update={"schema_name": "before"}))
    await connection.execute(text("ALTER SCHEMA before RENAME TO after"))

    key, instant, _ = (await connection.execute(text(insert_into(table, "after")))).one()

    assert instant_of(key) == instant


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC"])
async def test_the_time_zone_of_the_server_does_not_matter(
    empty: DatabaseSettings, connection: AsyncConnection, zone: str
) -> None:
    database = await connection.scalar(text("SELECT current_database()"))
    for setting in (f"timezone = '{zone}'", "datestyle = 'SQL, DMY'", "intervalstyle = iso_8601"):
        await connection.execute(text(f'ALTER DATABASE "{database}" SET {setting}'))
    await migrations.upgrade("0004", settings=empty)

    async with connect(empty) as fresh:
        assert await fresh.scalar(text("SHOW timezone")) == zone
        for instant in EDGES:
            query = text("SELECT agentobs_uuid7_floor(CAST(:at AS timestamptz))")
            assert await fresh.scalar(query, {"at": instant}) == uuid7_floor(instant)


async def test_a_window_of_time_is_found_by_the_index_of_the_key(at_0004: AsyncConnection) -> None:
    await at_0004.execute(text("SET LOCAL enable_seqscan = off"))
    await at_0004.execute(text("SET LOCAL enable_bitmapscan = off"))
    query = "SELECT 1 FROM router_performance_metrics WHERE id >= agentobs_uuid7_floor(now())"

    plan = (await at_0004.scalars(text(f"EXPLAIN {query}"))).all()

    assert any("Index Cond: (id >= " in line for line in plan)


@pytest.mark.parametrize("table", KINDS)
async def test_rows_from_before_keep_their_keys(
    empty: DatabaseSettings, connection: AsyncConnection, table: str
) -> None:
    await migrations.upgrade("0003", settings=empty)
    key, instant, _ = (await connection.execute(text(insert_into(table)))).one()

    await migrations.upgrade("0004", settings=empty)

    found = (await connection.execute(text(f"SELECT id, {KINDS[table][0]} FROM {table}"))).all()
    assert [tuple(row) for row in found] == [(key, instant)]


@pytest.mark.parametrize("table", KINDS)
async def test_a_downgrade_gives_random_keys_back_and_keeps_the_rows(
    empty: DatabaseSettings, connection: AsyncConnection, table: str
) -> None:
    await migrations.upgrade("0004", settings=empty)
    old, *_ = (await connection.execute(text(insert_into(table)))).one()

    await migrations.downgrade("0003", settings=empty)

    new, *_ = (await connection.execute(text(insert_into(table)))).one()
    assert new.version == 4
    assert set(await connection.scalars(text(f"SELECT id FROM {table}"))) == {old, new}
    assert is_time_ordered(old)


async def test_a_downgrade_leaves_no_function_behind(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await migrations.upgrade("0004", settings=empty)
    await migrations.downgrade("0003", settings=empty)

    left = text("SELECT count(*) FROM pg_proc WHERE proname LIKE 'agentobs%'")
    assert await connection.scalar(left) == 0
