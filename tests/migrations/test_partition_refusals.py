"""What revision 0005 does not carry over it refuses by name, and changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, INSTANTS, METRICS, insert_child, insert_row, rows_of
from support.shell import connect_in_transaction

from agentobs import migrations
from agentobs.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

# What a host may have made on a table, and what of it the refusal names.
DEPENDENTS = {
    "view": ("CREATE VIEW host_view AS SELECT id FROM {table}", "view host_view"),
    "materialized view": (
        "CREATE MATERIALIZED VIEW host_view AS SELECT count(*) FROM {table}",
        "materialized view host_view",
    ),
    "foreign key": (
        "CREATE TABLE host_notes (event uuid CONSTRAINT host_key REFERENCES {table})",
        "constraint host_key on table host_notes",
    ),
    "function of the row type": (
        "CREATE FUNCTION host_function(one {table}) RETURNS int LANGUAGE sql RETURN 1",
        "function host_function",
    ),
    "function of many rows": (
        "CREATE FUNCTION host_function(rows {table}[]) RETURNS int LANGUAGE sql RETURN 1",
        "function host_function",
    ),
    "function that reads": (
        (
            "CREATE FUNCTION host_function() RETURNS bigint LANGUAGE sql "
            "RETURN (SELECT count(*) FROM {table})"
        ),
        "function host_function",
    ),
    "column of the row type": (
        "CREATE TABLE host_notes (event {table})",
        "column event of table host_notes",
    ),
    "trigger": (
        (
            "CREATE TRIGGER host_trigger BEFORE UPDATE ON {table} FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        "trigger host_trigger on table {table}",
    ),
    "rule": (
        "CREATE RULE host_rule AS ON DELETE TO {table} DO ALSO NOTIFY host",
        "rule host_rule on table {table}",
    ),
    "policy": ("CREATE POLICY host_policy ON {table} USING (true)", "policy host_policy"),
    "row security": (
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        "row security of table {table}",
    ),
    "publication": (
        "CREATE PUBLICATION host_publication FOR TABLE {table}",
        "publication of table {table} in publication host_publication",
    ),
    "unique constraint": (
        "ALTER TABLE {table} ADD CONSTRAINT host_unique UNIQUE (correlation_id, id)",
        "constraint host_unique",
    ),
    "unique index": (
        "CREATE UNIQUE INDEX host_unique ON {table} (correlation_id)",
        "index host_unique",
    ),
    "exclusion": (
        (
            "ALTER TABLE {table} ADD CONSTRAINT host_exclusion "
            "EXCLUDE USING btree (correlation_id WITH =)"
        ),
        "constraint host_exclusion",
    ),
    "check of this table alone": (
        "ALTER TABLE {table} ADD CONSTRAINT host_check CHECK (true) NO INHERIT",
        "constraint host_check",
    ),
    "check that is not valid": (
        "ALTER TABLE {table} ADD CONSTRAINT host_check CHECK (true) NOT VALID",
        "constraint host_check",
    ),
    "foreign key that is not valid": (
        (
            "ALTER TABLE {table} ADD CONSTRAINT host_key FOREIGN KEY (correlation_id) "
            "REFERENCES agent_definitions NOT VALID"
        ),
        "constraint host_key",
    ),
    "child": ("CREATE TABLE host_child () INHERITS ({table})", "table host_child"),
    "serial": ("ALTER TABLE {table} ADD COLUMN host_number serial", "host_number_seq"),
    "identity": (
        "ALTER TABLE {table} ADD COLUMN host_number int GENERATED ALWAYS AS IDENTITY",
        "host_number_seq",
    ),
}

WAITING = """
    FROM pg_stat_activity WHERE application_name = 'agentobs migrations'
    AND datname = current_database() AND wait_event_type = 'Lock'
"""
# What a host has that watches over all tables: a trigger for each new one.
WATCH = [
    """
    CREATE FUNCTION host_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.user_request := 'seen';
        RETURN {returned};
    END $$
    """,
    f"""
    CREATE FUNCTION host_watch() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                   WHERE object_identity = 'public.{EVENTS}') THEN
            CREATE TRIGGER host_trigger BEFORE INSERT ON {EVENTS}
            FOR EACH ROW EXECUTE FUNCTION host_trigger();
        END IF;
    END $$
    """,
    (
        "CREATE EVENT TRIGGER host_watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') "
        "EXECUTE FUNCTION host_watch()"
    ),
]


@pytest_asyncio.fixture
async def at_0004(empty: DatabaseSettings, connection: AsyncConnection) -> AsyncConnection:
    await migrations.upgrade("0004", settings=empty)
    return connection


@pytest_asyncio.fixture
async def at_0005(empty: DatabaseSettings, connection: AsyncConnection) -> AsyncConnection:
    await migrations.upgrade("0005", settings=empty)
    return connection


@asynccontextmanager
async def unchanged(
    settings: DatabaseSettings, connection: AsyncConnection, revision: str
) -> AsyncIterator[None]:
    """Expect the database to be what it was, and at its revision."""
    tables = [EVENTS, METRICS]
    before = await read_catalog(connection), [await rows_of(connection, each) for each in tables]
    yield
    after = await read_catalog(connection), [await rows_of(connection, each) for each in tables]
    assert after == before
    assert await migrations.current(settings=settings) == revision


async def waiting_statement(connection: AsyncConnection, run: asyncio.Task[None]) -> str:
    """Return the statement for which the migration waits, once it does."""
    found: list[str] = []
    while not found:
        assert not run.done()
        found = list(await connection.scalars(text(f"SELECT query {WAITING}")))
    return found[0].strip()


@pytest.mark.parametrize("table", INSTANTS)
@pytest.mark.parametrize("kind", DEPENDENTS)
async def test_an_object_of_the_host_is_named_and_nothing_is_changed(
    empty: DatabaseSettings, at_0004: AsyncConnection, kind: str, table: str
) -> None:
    statement, name = DEPENDENTS[kind]
    await insert_row(at_0004, table)
    await at_0004.execute(text(statement.format(table=table)))

    async with unchanged(empty, at_0004, "0004"):
        with pytest.raises(MigrationError) as caught:
            await migrations.upgrade("0005", settings=empty)

    assert name.format(table=table) in str(caught.value)
    assert "drop what is named" in str(caught.value)
    assert caught.value.revision == "0004"


async def test_a_table_of_the_host_that_is_the_parent_is_named(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    await at_0004.execute(text("CREATE TABLE host_base (correlation_id uuid NOT NULL)"))
    await at_0004.execute(text(f"ALTER TABLE {EVENTS} INHERIT host_base"))

    with pytest.raises(MigrationError, match=f"inheritance of host_base by {EVENTS}"):
        await migrations.upgrade("0005", settings=empty)


async def test_all_objects_of_the_host_are_named_at_once(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    await at_0004.execute(text(f"CREATE VIEW host_events AS SELECT * FROM {EVENTS}"))
    await at_0004.execute(text(f"CREATE VIEW host_metrics AS SELECT * FROM {METRICS}"))

    with pytest.raises(MigrationError, match=r"view host_events, .*view host_metrics"):
        await migrations.upgrade("0005", settings=empty)


async def test_the_upgrade_goes_on_once_the_object_is_dropped(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    await at_0004.execute(text(f"CREATE VIEW host_view AS SELECT * FROM {EVENTS}"))
    with pytest.raises(MigrationError):
        await migrations.upgrade("0005", settings=empty)
    await at_0004.execute(text("DROP VIEW host_view"))

    await migrations.upgrade("0005", settings=empty)

    assert await migrations.current(settings=empty) == "0005"


@pytest.mark.parametrize("kind", ["view", "foreign key", "trigger", "publication"])
async def test_a_downgrade_names_an_object_of_the_host_too(
    empty: DatabaseSettings, at_0005: AsyncConnection, kind: str
) -> None:
    statement, name = DEPENDENTS[kind]
    await at_0005.execute(text(statement.format(table=METRICS)))

    async with unchanged(empty, at_0005, "0005"):
        with pytest.raises(MigrationError) as caught:
            await migrations.downgrade("0004", settings=empty)

    assert name.format(table=METRICS) in str(caught.value)


@pytest.mark.parametrize("table", ["agent_definitions", EVENTS, METRICS])
async def test_a_reader_in_the_way_ends_the_run_before_it_begins(
    empty: DatabaseSettings, at_0004: AsyncConnection, table: str
) -> None:
    await insert_row(at_0004)
    async with (
        unchanged(empty, at_0004, "0004"),
        connect_in_transaction(empty) as reader,
    ):
        await reader.execute(text(f"SELECT count(*) FROM {table}"))
        run = asyncio.create_task(migrations.upgrade("0005", settings=empty))
        assert "LOCK TABLE" in await waiting_statement(at_0004, run)
        with pytest.raises(MigrationError, match="55P03"):
            await run


async def test_a_table_that_a_key_of_the_host_names_is_locked_before_rows_are_copied(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    await at_0004.execute(text("CREATE TABLE host_tenants (id int PRIMARY KEY)"))
    await at_0004.execute(
        text(f"ALTER TABLE {METRICS} ADD COLUMN host_tenant int REFERENCES host_tenants")
    )
    async with connect_in_transaction(empty) as reader:
        await reader.execute(text("SELECT count(*) FROM host_tenants"))
        run = asyncio.create_task(migrations.upgrade("0005", settings=empty))
        assert "DROP CONSTRAINT" in await waiting_statement(at_0004, run)
        with pytest.raises(MigrationError, match="55P03"):
            await run


async def test_a_backend_that_is_killed_in_the_middle_leaves_all_as_it_was(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    parent = await insert_row(at_0004)
    await insert_child(at_0004, parent)
    await at_0004.execute(text("CREATE TABLE host_tenants (id int PRIMARY KEY)"))
    await at_0004.execute(
        text(f"ALTER TABLE {METRICS} ADD COLUMN host_tenant int REFERENCES host_tenants")
    )
    async with (
        unchanged(empty, at_0004, "0004"),
        connect_in_transaction(empty) as reader,
    ):
        await reader.execute(text("SELECT count(*) FROM host_tenants"))
        run = asyncio.create_task(migrations.upgrade("0005", settings=empty))
        # By then the events' old table has been moved aside.
        assert "DROP CONSTRAINT" in await waiting_statement(at_0004, run)
        await at_0004.execute(text(f"SELECT pg_terminate_backend(pid) {WAITING}"))
        with pytest.raises(MigrationError):
            await run


async def test_a_role_that_does_not_own_the_tables_is_told_so(
    empty: DatabaseSettings, at_0004: AsyncConnection
) -> None:
    role = f"guest_{uuid4().hex}"
    database = await at_0004.scalar(text("SELECT current_database()"))
    for statement in (
        f"CREATE ROLE {role}",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f'ALTER DATABASE "{database}" SET role = {role}',
    ):
        await at_0004.execute(text(statement))

    try:
        with pytest.raises(MigrationError, match="42501") as caught:
            await migrations.upgrade("0005", settings=empty)
    finally:
        for statement in (f'ALTER DATABASE "{database}" RESET role', f"DROP OWNED BY {role}",
                          f"DROP ROLE {role}"):  # fmt: skip
            await at_0004.execute(text(statement))
    assert "AGENTOBS_MIGRATION_URL" in str(caught.value)
    assert await migrations.current(settings=empty) == "0004"


@pytest.mark.parametrize(
    ("returned", "counts"), [("NEW", "1 before, 1 after"), ("NULL", "1 before, 0 after")]
)
async def test_a_row_that_is_changed_or_lost_on_its_way_undoes_the_whole_run(
    empty: DatabaseSettings, at_0004: AsyncConnection, returned: str, counts: str
) -> None:
    await insert_row(at_0004)
    for statement in WATCH:
        await at_0004.execute(text(statement.replace("{returned}", returned)))

    async with unchanged(empty, at_0004, "0004"):
        with pytest.raises(MigrationError, match=f"AO003.*{EVENTS}.*{counts}"):
            await migrations.upgrade("0005", settings=empty)
