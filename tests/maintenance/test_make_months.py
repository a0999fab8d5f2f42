"""Partitions ahead of time: what maintenance makes is what the migration makes."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS, insert_row, partition_of
from support.maintenance import (
    FEBRUARY,
    MARCH,
    add_row,
    letting_go,
    maintained,
    middle_of,
    partitions_of,
    steps_left,
)
from support.shell import agentobs, connect

from agentobs import migrations
from agentobs.errors import MaintenanceError
from agentobs.maintenance import Month, Policy, maintain
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

NOW = datetime.now(UTC)
THIS = Month.of(NOW)
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
AHEAD = list(THIS.and_following(5))[-1]

# A partition in words of the catalog, where its own name is written as LEAF.
_FACTS = text(
    """
    WITH leaf AS (SELECT oid, relname FROM pg_class
                  WHERE relname = :name AND relnamespace = to_regnamespace(:schema))
    SELECT replace(fact, relname, 'LEAF') FROM leaf, LATERAL (
        SELECT format('column %s %s %s %s %s %s', attnum, attname,
                      format_type(atttypid, atttypmod), attnotnull, attgenerated, attstorage)
        FROM pg_attribute WHERE attrelid = leaf.oid AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT format('default %s', pg_get_expr(adbin, adrelid)) FROM pg_attrdef
        WHERE adrelid = leaf.oid
        UNION ALL
        SELECT format('constraint %s %s %s %s', conname, coninhcount, conislocal, convalidated)
               || pg_get_constraintdef(pg_constraint.oid)
        FROM pg_constraint WHERE conrelid = leaf.oid
        UNION ALL
        SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = leaf.oid
        UNION ALL
        SELECT format('trigger %s', tgname) FROM pg_trigger
        WHERE tgrelid = leaf.oid AND NOT tgisinternal
        UNION ALL
        SELECT format('comment %s %s', objsubid, regexp_replace(description, '\\d{4}-\\d{2}', ''))
        FROM pg_description WHERE objoid = leaf.oid
        UNION ALL
        SELECT format('settings %s, grants %s, owner %s', reloptions, relacl, relowner)
        FROM pg_class WHERE oid = leaf.oid
    ) AS facts (fact)
    ORDER BY 1
    """
)


@pytest.fixture
def database(agentobs_server: URL) -> Iterator[DatabaseSettings]:
    with temporary_database(agentobs_server) as name:
        yield settings_for(agentobs_server, name)


async def facts_of(connection: AsyncConnection, name: str, schema: str = "public") -> list[str]:
    """Return all of a partition; its bounds stand in its CHECK, which is another one's in time."""
    found = await connection.scalars(_FACTS, {"name": name, "schema": schema})
    # A name that is too long has an end by which it differs from those of the other months.
    shown = (re.sub(r"INDEX (?!LEAF)\S+ ON", "INDEX … ON", fact) for fact in found)
    return sorted(fact for fact in shown if "_at_check" not in fact)


async def index_names_of(connection: AsyncConnection, name: str) -> list[tuple[str, str]]:
    query = text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = :name ORDER BY 1")
    return [(row[0], row[1]) for row in await connection.execute(query, {"name": name})]


async def test_months_ahead_are_made_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    plan = await maintained(agentobs_database, Policy(ahead=5))

    assert len(plan.steps) == 4
    assert EVENTS + "_" + AHEAD.suffix in await partitions_of(look)
    assert METRICS + "_" + AHEAD.suffix in await partitions_of(look, METRICS)
    assert await steps_left(agentobs_database, Policy(ahead=5)) == []


async def test_what_is_planned_is_what_is_done_and_planning_changes_nothing(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    before = await partitions_of(look)

    planned = await steps_left(agentobs_database, Policy(ahead=5))

    assert await partitions_of(look) == before
    plan = await maintained(agentobs_database, Policy(ahead=5))
    assert [str(step) for step in plan.steps] == planned


@pytest.mark.parametrize("table", [EVENTS, METRICS])
async def test_a_month_that_maintenance_makes_equals_one_that_the_migration_made(
    agentobs_database: DatabaseSettings, look: AsyncConnection, table: str
) -> None:
    await maintained(agentobs_database, Policy(ahead=5))

    made = await facts_of(look, f"{table}_{AHEAD.suffix}")
    migrated = await facts_of(look, f"{table}_{THIS.suffix}")

    assert made == migrated
    await migrations.check(settings=agentobs_database)


async def test_a_month_that_was_rewritten_equals_one_that_the_migration_made(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_row(look, middle_of(FEBRUARY))
    await maintained(agentobs_database)
    names = await index_names_of(look, f"{EVENTS}_{FEBRUARY.suffix}")

    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload"))

    rewritten = await facts_of(look, f"{EVENTS}_{FEBRUARY.suffix}")
    assert await index_names_of(look, f"{EVENTS}_{FEBRUARY.suffix}") == names
    assert rewritten == await facts_of(look, f"{EVENTS}_{THIS.suffix}")
    await migrations.check(settings=agentobs_database)


async def test_the_columns_and_settings_of_the_host_are_in_the_months_to_come(
    database: DatabaseSettings,
) -> None:
    await migrations.upgrade("0003", settings=database)
    async with connect(database) as look:
        for statement in (
            "ALTER TABLE {} ADD COLUMN place text NOT NULL DEFAULT 'here' CHECK (place <> '')",
            "ALTER TABLE {} ADD COLUMN shout text GENERATED ALWAYS AS (upper(target_agent)) STORED",
            "CREATE INDEX by_place ON {} (lower(place)) WHERE shout IS NOT NULL",
            "CREATE INDEX by_place_too ON {} (lower(place)) WHERE shout IS NOT NULL",
            "ALTER TABLE {} SET (autovacuum_vacuum_scale_factor = 0.01)",
            "ALTER TABLE {} SET (toast.autovacuum_enabled = false)",
        ):
            await look.execute(text(statement.format(EVENTS)))
        await migrations.upgrade(settings=database)
        await maintained(database, Policy(ahead=5))

        made = await facts_of(look, f"{EVENTS}_{AHEAD.suffix}")

        assert made == await facts_of(look, f"{EVENTS}_{THIS.suffix}")
        assert any("autovacuum_vacuum_scale_factor=0.01" in fact for fact in made)


async def test_what_the_host_grants_by_default_is_not_granted_on_a_month(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"))

    await maintained(agentobs_database, Policy(ahead=5))

    grants = text("SELECT relacl::text FROM pg_class WHERE relname = :name")
    found = await look.scalar(grants, {"name": f"{EVENTS}_{AHEAD.suffix}"})
    assert "{=" not in str(found)
    assert ",=" not in str(found)


@pytest.mark.parametrize("name", ['Agent "Obs"', "c:olon", "pct%s", "br{a}ce"])
async def test_a_schema_may_have_any_name(database: DatabaseSettings, name: str) -> None:
    settings = database.model_copy(update={"schema_name": name})
    await migrations.upgrade(settings=settings)

    await maintained(settings, Policy(ahead=5))

    assert await steps_left(settings, Policy(ahead=5)) == []
    await migrations.check(settings=settings)


async def test_a_month_belongs_to_the_owner_of_the_table_whoever_makes_it(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text("CREATE ROLE table_owner"))
    try:
        await look.execute(text("GRANT CREATE, USAGE ON SCHEMA public TO table_owner"))
        await look.execute(text(f"ALTER TABLE {EVENTS} OWNER TO table_owner"))
        await maintained(agentobs_database, Policy(ahead=5))

        owner = text("SELECT relowner::regrole::text FROM pg_class WHERE relname = :name")
        found = await look.scalar(owner, {"name": f"{EVENTS}_{AHEAD.suffix}"})
        assert found == "table_owner"
    finally:
        for statement in ("DROP OWNED BY table_owner CASCADE", "DROP ROLE table_owner"):
            await look.execute(text(statement))


async def test_rows_of_a_month_made_ahead_go_there_and_not_to_default(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await maintained(agentobs_database, Policy(ahead=5))

    key = await add_row(look, middle_of(AHEAD))

    assert await partition_of(look, key) == AHEAD.suffix


EDGES = [
    FIRST,
    datetime(1972, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2023, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2023, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    # Clocks are set forward and back in Berlin.
    datetime(2024, 3, 31, 0, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 10, 27, 1, 30, tzinfo=UTC),
    datetime(9999, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC),
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu"])
async def test_any_instant_lands_in_the_partition_whose_check_takes_it(
    agentobs_database: DatabaseSettings, look: AsyncConnection, zone: str
) -> None:
    name = await look.scalar(text("SELECT current_database()"))
    await look.execute(text(f"ALTER DATABASE {name} SET timezone = '{zone}'"))
    chance = random.Random(zone)  # noqa: S311 (no secret)
    some = [FIRST + timedelta(seconds=chance.uniform(0, 8e9)) for _ in range(20)]
    rows = {await add_row(look, at): at for at in [*EDGES, *some]}

    await maintained(agentobs_database)

    for key, instant in rows.items():
        assert await partition_of(look, key) == Month.of(instant).suffix
    assert await steps_left(agentobs_database) == []


async def test_a_clock_that_differs_at_a_months_end_costs_no_row(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    fast = await add_row(look, MARCH.first, started_at=MARCH.first - timedelta(hours=23))
    slow = await add_row(
        look, MARCH.first - timedelta(microseconds=1), started_at=MARCH.first + timedelta(hours=23)
    )

    await maintained(agentobs_database)

    assert await partition_of(look, fast) == MARCH.suffix
    assert await partition_of(look, slow) == FEBRUARY.suffix


async def test_a_partition_of_other_bounds_is_left_alone(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    lower, upper = AHEAD.lower_id, Month(AHEAD.year + 2, 1).upper_id
    await look.execute(
        text(f"CREATE TABLE rest PARTITION OF {EVENTS} FOR VALUES FROM ('{lower}') TO ('{upper}')")
    )

    plan = await maintained(agentobs_database, Policy(ahead=8))

    assert f"{EVENTS}_{AHEAD.suffix}" not in await partitions_of(look)
    assert f"{METRICS}_{AHEAD.suffix}" in await partitions_of(look, METRICS)
    assert plan.notes == ("rest is left alone: it is no partition of a month",)


async def test_a_table_in_the_way_of_a_month_is_told_of_and_the_others_are_made(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    before = list(THIS.and_following(4))[-1]
    await look.execute(text(f"CREATE TABLE {EVENTS}_{before.suffix} (mine integer)"))

    plan = await maintained(agentobs_database, Policy(ahead=5))

    assert f"{EVENTS}_{AHEAD.suffix}" in await partitions_of(look)
    assert any(f"{EVENTS}_{before.suffix} can't be made" in note for note in plan.notes)


async def test_a_database_that_is_not_at_head_is_told_the_fix(database: DatabaseSettings) -> None:
    await migrations.upgrade("0003", settings=database)

    with pytest.raises(MaintenanceError, match="agentobs db upgrade"):
        await maintain(settings=database)


async def test_the_downgrade_takes_what_maintenance_made(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await insert_row(look, id=uuid4(), started_at=middle_of(FEBRUARY))
    await add_row(look, middle_of(FEBRUARY))
    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload"))

    await migrations.downgrade("0003", settings=agentobs_database)
    await migrations.upgrade(settings=agentobs_database)

    assert await look.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 2
    assert await steps_left(agentobs_database) == []


def test_the_command_makes_the_months(agentobs_database: DatabaseSettings) -> None:
    made = agentobs("maintain", "--ahead", "4", "--apply", settings=agentobs_database)

    assert (made.returncode, made.stdout.count("done: make ")) == (0, 2)
