"""A database in use, with months, rollups, former ids and rights, after pg_dump and pg_restore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from support.catalog_snapshot import read_catalog
from support.dumps import dump, restore, run_dump
from support.event_rows import EVENTS, METRICS
from support.maintenance import (
    FEBRUARY,
    JANUARY,
    folds_left,
    letting_go,
    maintained,
    middle_of,
    steps_left,
)
from support.private_server import private_server
from support.roles import SCHEMA, as_role, drop_roles, make_roles, names_for, quoted, roles
from support.server_versions import needs_server
from support.shell import connect

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    Database,
    DatabaseSettings,
    RouterPerformanceMetric,
    migrations,
)
from agentobs.analytics import Window, agents, routing_summary
from agentobs.keys import uuid7_at
from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

NOW = datetime.now(UTC)
EXPIRED = 1
"""How many runs of the source have gone with their month, and are known to its rollups alone."""
WINDOW = Window(JANUARY.first, NOW)
TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relkind IN ('r', 'p')
      AND NOT relispartition
    ORDER BY 1
""")
# What the snapshot of the catalog leaves out: who owns what, who may do what, and when triggers
# and functions work.
MANNERS = {
    "owners": """
        SELECT relname, relowner::regrole::text, reloptions::text FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(:schema)) ORDER BY 1
    """,
    "rights": """
        SELECT relname, grantee::regrole::text, privilege_type
        FROM pg_class, aclexplode(coalesce(
            relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))
        WHERE relnamespace = to_regnamespace(quote_ident(:schema))
        UNION ALL
        SELECT proname, grantee::regrole::text, privilege_type
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pronamespace = to_regnamespace(quote_ident(:schema))
        ORDER BY 1, 2, 3
    """,
    "triggers": """
        SELECT relname, tgname, tgenabled::text FROM pg_trigger
        JOIN pg_class ON tgrelid = pg_class.oid
        WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND NOT tgisinternal
        ORDER BY 1, 2
    """,
    "functions": """
        SELECT proname, proowner::regrole::text, prosecdef, proconfig::text
        FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(:schema)) ORDER BY 1
    """,
}


async def rows_of(connection: AsyncConnection, schema: str) -> dict[str, list[str]]:
    """Return the rows of all tables as texts, each table in one order."""
    names = await connection.scalars(TABLES, {"schema": schema})
    return {
        name: list(
            (
                await connection.exec_driver_sql(
                    f"SELECT t::text FROM {quoted(schema)}.{quoted(name)} t ORDER BY 1"
                )
            ).scalars()
        )
        for name in names
    }


async def state_of(settings: DatabaseSettings) -> dict[str, Any]:
    schema = settings.schema_name or "public"
    async with connect(settings) as connection:
        manners = {
            what: [tuple(row) for row in await connection.execute(text(query), {"schema": schema})]
            for what, query in MANNERS.items()
        }
        watermark = f"{quoted(schema)}.agentobs_rollup_watermark"
        return {
            "catalog": await read_catalog(connection, quoted(schema)),
            "rows": await rows_of(connection, schema),
            "watermark": await connection.scalar(text(f"SELECT last_value FROM {watermark}")),
            **manners,
        }


async def answers_of(settings: DatabaseSettings) -> tuple[object, object]:
    async with Database(settings) as database, database.session() as session:
        return await agents(session, WINDOW), await routing_summary(session, WINDOW)


async def add_runs(settings: DatabaseSettings, *instants: datetime) -> None:
    async with Database(settings) as database, database.begin() as session:
        for instant in instants:
            session.add(
                AgentTransformationEvent(
                    id=uuid7_at(instant),
                    started_at=instant,
                    event_type="transformation_complete",
                    correlation_id=uuid4(),
                    target_agent="agent-a",
                    context_snapshot={"é": [1, 2**70]},
                    total_execution_duration_ms=10,
                    success=True,
                )
            )
            session.add(
                RouterPerformanceMetric(
                    id=uuid7_at(instant),
                    measured_at=instant,
                    metric_type="routing_decision",
                    selected_agent="agent-a",
                    total_routing_time_us=900,
                )
            )


async def fill(settings: DatabaseSettings, role: str) -> None:
    """Bring a database to what one is after years: former ids, a month that went, marks, rights."""
    schema = quoted(settings.schema_name or "public")
    await migrations.upgrade("0003", settings=settings)
    async with connect(settings) as connection:
        for table, instant in ((EVENTS, "started_at"), (METRICS, "measured_at")):
            values = {EVENTS: "'x', gen_random_uuid(), 'agent-b'", METRICS: "'x'"}[table]
            columns = {EVENTS: "event_type, correlation_id, target_agent", METRICS: "metric_type"}
            await connection.exec_driver_sql(
                f"INSERT INTO {schema}.{table} ({columns[table]}, {instant}) "
                f"VALUES ({values}, '{middle_of(FEBRUARY).isoformat()}')"
            )
    await migrations.upgrade(settings=settings)
    await migrations.grant(readers=[role], apply=True, settings=settings)
    async with Database(settings) as database, database.begin() as session:
        session.add(AgentDefinition(agent_name="agent-a", agent_type="x", yaml_config={"a": 1}))
    await add_runs(settings, middle_of(JANUARY), middle_of(FEBRUARY), NOW - timedelta(hours=3))
    await maintained(settings, letting_go(JANUARY))
    # A row that is late, and one that no month takes, the child of a later one.
    await add_runs(settings, middle_of(FEBRUARY), datetime(1980, 1, 1, tzinfo=UTC))
    async with connect(settings) as connection:
        await connection.exec_driver_sql(f"""
            UPDATE {schema}.{EVENTS}
            SET parent_event_id = (SELECT id FROM {schema}.{EVENTS} ORDER BY id DESC LIMIT 1)
            WHERE started_at < '1990-01-01'
        """)


@pytest.fixture(scope="module", params=["public", SCHEMA], ids=["public", "own schema"])
def source(agentobs_server: URL, request: pytest.FixtureRequest) -> Iterator[DatabaseSettings]:
    with temporary_database(agentobs_server) as name:
        found = settings_for(agentobs_server, name)
        if request.param == SCHEMA:
            found = found.model_copy(update={"schema_name": SCHEMA})
        readers = names_for("reader")
        run(make_roles(found, readers))
        try:
            run(fill(found, readers[0]))
            yield found
        finally:
            run(drop_roles(found, readers))


@pytest.fixture
def target(source: DatabaseSettings, empty: DatabaseSettings) -> DatabaseSettings:
    """Return an empty database, where the tables will stand in the schema of the source."""
    return empty.model_copy(update={"schema_name": source.schema_name})


async def test_catalog_rows_rights_and_answers_come_back(
    source: DatabaseSettings, target: DatabaseSettings
) -> None:
    before, answers = await state_of(source), await answers_of(source)

    restore(target, dump(source, "--format=custom"))

    assert await state_of(target) == before
    assert await answers_of(target) == answers


async def test_a_plain_dump_gives_the_same(
    source: DatabaseSettings, target: DatabaseSettings
) -> None:
    run_dump(target, dump(source, "--format=plain"))

    assert await state_of(target) == await state_of(source)


async def test_three_sections_give_the_same(
    source: DatabaseSettings, target: DatabaseSettings
) -> None:
    archive = dump(source, "--format=custom")

    for section in ("pre-data", "data", "post-data"):
        restore(target, archive, f"--section={section}")

    assert await state_of(target) == await state_of(source)


async def test_a_restored_database_is_migrated_maintained_and_written_to(
    source: DatabaseSettings, target: DatabaseSettings
) -> None:
    restore(target, dump(source, "--format=custom"))

    await migrations.upgrade(settings=target)
    await migrations.check(settings=target)
    (before, _), executions = await answers_of(target), await executions_of(target)
    await maintained(target)
    assert (await answers_of(target))[0] == before
    assert (await steps_left(target), await folds_left(target)) == ([], [])
    await add_runs(target, middle_of(FEBRUARY))

    assert await executions_of(target) == executions + 1
    assert await folds_left(target) != []


async def test_another_role_owns_what_is_restored_for_it(
    source: DatabaseSettings, target: DatabaseSettings, empty: DatabaseSettings
) -> None:
    answers = await answers_of(source)
    async with roles(empty, "owner", "writer", "reader") as (owner, writer, reader):
        await let_make_schemas(empty, owner)
        archive = dump(source, "--format=custom")
        restore(target, archive, "--no-owner", "--no-privileges", f"--role={owner}")

        owned = as_role(target, owner)
        assert {row[1] for row in (await state_of(target))["owners"]} == {quoted(owner)}
        assert {row[1] for row in (await state_of(target))["functions"]} == {quoted(owner)}
        assert await answers_of(owned) == answers
        await migrations.check(settings=owned)
        await migrations.grant(writers=[writer], readers=[reader], apply=True, settings=owned)
        await maintained(owned)
        await add_runs(as_role(target, writer), middle_of(FEBRUARY))
        assert await folds_left(owned) != []
        await answers_of(as_role(target, reader))
        await migrations.downgrade("base", settings=owned)


async def test_rows_alone_come_to_a_database_that_was_migrated(
    source: DatabaseSettings, target: DatabaseSettings
) -> None:
    await migrations.upgrade(settings=target)
    tables = [f"--table=*.{name}" for name in ("agent_definitions", f"{EVENTS}*", f"{METRICS}*")]

    # Its months may be others, and a child may come before its parent; what marks hours goes on.
    archive = dump(source, "--format=custom", "--data-only", "--load-via-partition-root", *tables)
    restore(target, archive, before="SET session_replication_role = replica;\n")

    before, after = [await rows_of_models(settings) for settings in (source, target)]
    assert after == before
    expected = await executions_of(source) - EXPIRED
    assert await executions_of(target) == expected
    await maintained(target)
    assert (await executions_of(target), await steps_left(target)) == (expected, [])
    await migrations.check(settings=target)


async def test_an_older_server_is_left_for_a_newer_one(
    target: DatabaseSettings, source: DatabaseSettings
) -> None:
    programs = system_programs()
    async with connect(target) as connection:
        await needs_server(
            connection, int(programs.parent.name), "a dump of the system's server is restored"
        )
    with private_server(programs=programs) as server:
        older = settings_for(make_url(server.url()), server.database).model_copy(
            update={"schema_name": source.schema_name}
        )
        await migrations.upgrade(settings=older)
        await add_runs(older, middle_of(JANUARY), NOW - timedelta(hours=3))
        await maintained(older)
        async with connect(older) as connection:
            rows = await rows_of(connection, older.schema_name or "public")
        answers = await answers_of(older)

        restore(target, dump(older, "--format=custom"), "--no-owner")

    async with connect(target) as connection:
        assert await rows_of(connection, target.schema_name or "public") == rows
    assert await answers_of(target) == answers
    await migrations.check(settings=target)
    await maintained(target)
    assert await answers_of(target) == answers


async def rows_of_models(settings: DatabaseSettings) -> dict[str, list[str]]:
    async with connect(settings) as connection:
        rows = await rows_of(connection, settings.schema_name or "public")
    found = {name: each for name, each in rows.items() if not name.startswith("agentobs_")}
    assert len(found) == 5
    return found


async def executions_of(settings: DatabaseSettings) -> int:
    async with Database(settings) as database, database.session() as session:
        return sum(each.executions for each in await agents(session, WINDOW))


async def let_make_schemas(settings: DatabaseSettings, role: str) -> None:
    """Give a role what a restoration needs of it: a schema made in the dump is made by it."""
    async with connect(settings) as connection:
        database = await connection.scalar(text("SELECT quote_ident(current_database())"))
        await connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {database} TO {quoted(role)}")
        await connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {quoted(role)}")


def system_programs() -> Path:
    """Return the programs of the oldest server that the system has installed."""
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    return min(installed, key=lambda each: int(each.parent.name))
