"""The package is a guest in its host's database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.shell import HEAD, psql

from agentobs import AgentDefinition, create_engine, create_session_factory, migrations
from agentobs.errors import MigrationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

HOST_TABLES = (
    "CREATE TABLE orders (id integer PRIMARY KEY, note text)",
    "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('bf29a5ff90ea')",
)


async def _make_host(connection: AsyncConnection) -> None:
    for statement in HOST_TABLES:
        await connection.execute(text(statement))


async def test_the_hosts_tables_and_revision_are_left_alone(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await _make_host(connection)
    before = await read_catalog(connection)

    await migrations.upgrade(settings=empty)
    assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == (
        "bf29a5ff90ea"
    )
    await migrations.downgrade("base", settings=empty)

    assert await read_catalog(connection) == before


async def test_check_does_not_propose_to_drop_the_hosts_tables(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await _make_host(connection)
    await migrations.upgrade(settings=empty)

    await migrations.check(settings=empty)


async def test_the_tables_live_in_the_schema_of_the_hosts_choice(
    empty: DatabaseSettings, connection: AsyncConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = empty.model_copy(update={"schema_name": 'Agent "Obs"'})
    await migrations.upgrade(settings=settings)

    summary = capsys.readouterr().err
    assert f'schema Agent "Obs" is now at {HEAD}' in summary
    assert summary.count(" kB") == 3
    assert all(rows == [] for rows in (await read_catalog(connection)).values())
    tables = (await read_catalog(connection, '"Agent ""Obs"""'))["tables"]
    assert {
        "agent_definitions",
        "agent_transformation_events",
        "agentobs_alembic_version",
        "router_performance_metrics",
    } <= {name for name, _ in tables}
    assert await migrations.current(settings=settings) == HEAD
    await migrations.check(settings=settings)
    await migrations.downgrade("base", settings=settings)
    left = await read_catalog(connection, '"Agent ""Obs"""')
    assert all(rows == [] for rows in left.values())


@pytest.mark.parametrize("name", ["pct%s", "a b", "ünïcode", "select", 'q"q', "c:olon", "d$$d"])
async def test_a_schema_may_have_any_name(
    name: str, empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    settings = empty.model_copy(update={"schema_name": name})
    await migrations.upgrade(settings=settings)
    await migrations.check(settings=settings)
    await migrations.downgrade("base", settings=settings)

    run = psql(empty, migrations.sql(settings=settings))
    assert (run.returncode, run.stderr) == (0, "")
    await migrations.check(settings=settings)
    assert (await read_catalog(connection))["tables"] == []


@pytest.mark.parametrize("run", ["upgrade 0815", "downgrade base", "stamp base"])
async def test_a_schema_that_stays_unused_is_not_left_behind(
    run: str, empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    settings = empty.model_copy(update={"schema_name": "unused"})
    command, revision = run.split()
    with suppress(MigrationError):
        await getattr(migrations, command)(revision, settings=settings)

    found = await connection.scalar(text("SELECT to_regnamespace('unused')::text"))
    assert found is None


async def test_a_schema_that_was_there_stays(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await connection.execute(text("CREATE SCHEMA mine"))
    settings = empty.model_copy(update={"schema_name": "mine"})
    await migrations.upgrade(settings=settings)
    await migrations.downgrade("base", settings=settings)

    assert await connection.scalar(text("SELECT to_regnamespace('mine')::text")) == "mine"


async def test_two_schemas_of_one_database_have_revisions_of_their_own(
    empty: DatabaseSettings,
) -> None:
    blue = empty.model_copy(update={"schema_name": "blue"})
    green = empty.model_copy(update={"schema_name": "green"})
    await migrations.upgrade("0001", settings=blue)
    await migrations.upgrade("0002", settings=green)

    assert await migrations.current(settings=blue) == "0001"
    assert await migrations.current(settings=green) == "0002"


async def test_the_models_reach_the_schema_of_the_hosts_choice(empty: DatabaseSettings) -> None:
    settings = empty.model_copy(update={"schema_name": "obs"})
    await migrations.upgrade(settings=settings)
    engine = create_engine(settings)
    async with create_session_factory(engine).begin() as session:
        session.add(AgentDefinition(agent_name="agent-a", agent_type="x", yaml_config={}))
    async with engine.connect() as connection:
        counted = await connection.scalar(text("SELECT count(*) FROM obs.agent_definitions"))
    await engine.dispose()

    assert counted == 1


async def test_a_role_that_owns_only_its_schema_can_migrate(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    for statement in (
        "CREATE ROLE obs_owner",
        "CREATE SCHEMA obs AUTHORIZATION obs_owner",
        "SET ROLE obs_owner",
    ):
        await connection.execute(text(statement))
    try:
        database = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text(f'ALTER DATABASE "{database}" SET role = obs_owner'))
        settings = empty.model_copy(update={"schema_name": "obs"})
        await migrations.upgrade(settings=settings)
        owners = await connection.scalars(
            text("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'obs'")
        )
        assert owners.all() == ["obs_owner"]
        with pytest.raises(MigrationError, match="AGENTOBS_MIGRATION_URL"):
            await migrations.upgrade(settings=empty.model_copy(update={"schema_name": "other"}))
    finally:
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text("DROP OWNED BY obs_owner"))
        await connection.execute(text(f'ALTER DATABASE "{database}" RESET role'))
        await connection.execute(text("DROP ROLE obs_owner"))
