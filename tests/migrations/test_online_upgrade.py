"""An online upgrade makes what revision 0005 makes, while others write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, INSTANTS, METRICS
from support.online_pair import change, fill, fill_both, require_same
from support.shell import HEAD, agentobs, connect, psql

from agentobs import migrations
from agentobs.errors import MigrationError
from agentobs.migrations.online import copying, run

if TYPE_CHECKING:
    from support.online_pair import Pair


async def test_both_ways_lead_to_the_same_catalog_and_rows(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 37)
    locked, online = pair
    await fill_both(pair)

    await migrations.upgrade(settings=locked)
    await migrations.upgrade_online(settings=online)

    assert await migrations.current(settings=online) == HEAD
    await require_same(locked, online)
    await migrations.check(settings=online)


# What of a host goes along; each is tried on both tables at once.
OF_A_HOST = [
    "ALTER TABLE {table} ADD COLUMN host_note text NOT NULL DEFAULT 'é''%s'",
    'ALTER TABLE {table} ADD COLUMN host_json json DEFAULT \'{{"a": 1,  "a": 2}}\'',
    (
        "ALTER TABLE {table} ADD COLUMN host_length int "
        "GENERATED ALWAYS AS (length(correlation_id::text)) STORED"
    ),
    'ALTER TABLE {table} ADD COLUMN "Host ""%s"" Näme" int DEFAULT 1',
    'ALTER TABLE {table} ADD COLUMN "host:colon" int DEFAULT 1',
    "ALTER TABLE {table} ADD COLUMN host_gone int, ADD COLUMN host_kept int DEFAULT 2",
    "ALTER TABLE {table} DROP COLUMN host_gone",
    "CREATE TABLE IF NOT EXISTS host_tenants (id int PRIMARY KEY)",
    "INSERT INTO host_tenants VALUES (1) ON CONFLICT DO NOTHING",
    (
        "ALTER TABLE {table} ADD COLUMN host_tenant int DEFAULT 1 CONSTRAINT host_key "
        "REFERENCES host_tenants ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED"
    ),
    'ALTER TABLE {table} ADD CONSTRAINT "Host check" CHECK (correlation_id <> id)',
    "CREATE INDEX host_{table} ON {table} USING hash (correlation_id)",
    (
        'CREATE INDEX "Host ON ONLY {table}" ON {table} '
        "(lower(correlation_id::text) DESC NULLS LAST) INCLUDE (id) "
        "WITH (fillfactor = 70) WHERE correlation_id IS NOT NULL"
    ),
    "COMMENT ON INDEX host_{table} IS 'It''s %s the host''s'",
    "CREATE STATISTICS host_statistics_{table} (dependencies) ON correlation_id, id FROM {table}",
    "ALTER TABLE {table} ALTER COLUMN correlation_id SET STATISTICS 500",
    "ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01)",
    "GRANT SELECT ON {table} TO PUBLIC",
    "GRANT UPDATE (correlation_id) ON {table} TO PUBLIC",
    "COMMENT ON TABLE {table} IS 'the host''s'",
]


async def test_what_of_a_host_stands_on_the_tables_goes_along(pair: Pair) -> None:
    locked, online = pair
    for settings in pair:
        additions = [each.format(table=table) for table in INSTANTS for each in OF_A_HOST]
        await fill(settings, *additions)

    await migrations.upgrade(settings=locked)
    await migrations.upgrade_online(settings=online)

    await require_same(locked, online)


@pytest.mark.parametrize("revision", ["0003", "0005", "+1", "0088", "9999"])
async def test_a_revision_that_it_can_not_stop_at_is_refused(pair: Pair, revision: str) -> None:
    online, _ = pair
    await fill(online)

    with pytest.raises(MigrationError, match="an online upgrade ends at 0006 or later"):
        await migrations.upgrade_online(revision, settings=online)

    assert await migrations.current(settings=online) == "0004"


async def test_what_is_in_the_way_is_refused_before_anything_is_made(pair: Pair) -> None:
    online, _ = pair
    await migrations.upgrade("0003", settings=online)
    await change(online, f"CREATE VIEW host_recent AS SELECT * FROM {EVENTS}")
    async with connect(online) as connection:
        before = await read_catalog(connection)
        with pytest.raises(MigrationError, match=r"view host_recent.* is at 0003; drop") as refused:
            await migrations.upgrade_online(settings=online)

        assert refused.value.revision == "0003"
        assert await read_catalog(connection) == before


async def test_a_table_that_was_changed_meanwhile_is_told_and_the_run_can_be_taken_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, _ = pair
    await fill(online)
    rows = f"SELECT count(*) FROM {EVENTS}"
    async with connect(online) as connection:
        before = await read_catalog(connection)
        monkeypatch.setattr(run, "verify", lambda *_: psql(online, ADD_COLUMN))
        with pytest.raises(MigrationError, match="was changed since the online upgrade began"):
            await migrations.upgrade_online(settings=online)
        assert await connection.scalar(text(rows)) == 404
        await connection.exec_driver_sql(f"ALTER TABLE {EVENTS} DROP COLUMN host_late")
        undone = agentobs("db", "upgrade", "--online", "--undo", settings=online)

        assert (undone.returncode, undone.stderr) == (0, "")
        assert undone.stdout.startswith("The online upgrade is taken back")
        assert await read_catalog(connection) == before
        assert await connection.scalar(text(rows)) == 404


ADD_COLUMN = f"ALTER TABLE {EVENTS} ADD COLUMN IF NOT EXISTS host_late int"


async def test_nothing_else_migrates_while_one_is_under_way(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, _ = pair
    await fill(online)

    def break_off(*_: object) -> None:
        raise MigrationError("broken off")

    with monkeypatch.context() as patched:
        patched.setattr(run, "swap", break_off)
        with pytest.raises(MigrationError, match="broken off"):
            await migrations.upgrade_online(settings=online)
    for work in (
        migrations.upgrade("head", settings=online),
        migrations.downgrade("0003", settings=online),
    ):
        with pytest.raises(MigrationError, match="an online upgrade is under way"):
            await work

    finished = agentobs("db", "upgrade", "--online", settings=online)
    assert f"is now at {HEAD}" in finished.stderr


async def test_tables_in_a_schema_of_the_hosts_choice_are_adopted_and_rewritten(
    pair: Pair,
) -> None:
    settings = pair[0].model_copy(update={"schema_name": 'Agent "Obs"'})
    await migrations.upgrade("0003", settings=settings)
    schema = 'SET search_path = "Agent ""Obs"""'
    insert = f"INSERT INTO {METRICS} (metric_type, measured_at) VALUES ('x', '2024-03-03')"
    await change(settings, schema, insert, "DROP TABLE agentobs_alembic_version")

    assert (await migrations.adopt(settings=settings)).is_adopted
    await migrations.upgrade_online(settings=settings)

    async with connect(settings) as connection:
        await connection.exec_driver_sql(schema)
        assert await connection.scalar(text(f"SELECT count(*) FROM {METRICS}_y2024m03")) == 1
        elsewhere = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert await connection.scalar(text(elsewhere)) == 0
    await migrations.check(settings=settings)


async def test_a_database_past_the_rewriting_is_upgraded_as_usual(pair: Pair) -> None:
    online, _ = pair
    await migrations.upgrade("0006", settings=online)

    await migrations.upgrade_online(settings=online)
    assert await migrations.current(settings=online) == HEAD
    with pytest.raises(MigrationError, match="no online upgrade is under way"):
        await migrations.undo_online(settings=online)


async def test_what_a_downgrade_leaves_for_the_next_upgrade_is_in_nobodys_way(pair: Pair) -> None:
    online, _ = pair
    await migrations.upgrade(settings=online)
    await change(online, NOTED)
    await migrations.downgrade("0004", settings=online)

    await migrations.upgrade_online(settings=online)

    assert await migrations.current(settings=online) == HEAD
    async with connect(online) as connection:
        noted = await connection.scalars(text("SELECT archive FROM agentobs_partitions"))
        assert noted.all() == ["kept"]


NOTED = (
    "INSERT INTO agentobs_partitions (table_name, month, lower_id, upper_id, archive) "
    f"VALUES ('{EVENTS}', '2020-01-01', gen_random_uuid(), gen_random_uuid(), 'kept')"
)


async def test_an_older_revision_than_the_tables_are_of_is_told(pair: Pair) -> None:
    online, _ = pair
    await migrations.upgrade(settings=online)
    await migrations.stamp("0003", settings=online)

    with pytest.raises(MigrationError, match=f"0003 is recorded, .* `agentobs db stamp {HEAD}`"):
        await migrations.upgrade_online(settings=online)
    with pytest.raises(MigrationError, match="there already: `agentobs doctor` tells which"):
        await migrations.upgrade(settings=online)


async def test_the_downgrade_gives_the_former_ids_back(pair: Pair) -> None:
    online, untouched = pair
    await fill_both(pair)

    await migrations.upgrade_online(settings=online)
    await migrations.downgrade("0004", settings=online)

    query = f"SELECT t::text FROM {EVENTS} t"
    async with connect(online) as one, connect(untouched) as other:
        assert sorted(await one.scalars(text(query))) == sorted(await other.scalars(text(query)))
