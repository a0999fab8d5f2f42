"""An online upgrade makes what revision 0005 makes, while others write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, INSTANTS, METRICS
from support.scripted import fill_old_tables
from support.shell import HEAD, agentobs, connect, psql

from agentobs import migrations
from agentobs.errors import MigrationError
from agentobs.migrations.online import catching_up, copying, run
from agentobs.migrations.online.indexing import index_partitions
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

    Pair = tuple[DatabaseSettings, DatabaseSettings]


@pytest.fixture
def pair(agentobs_server: URL) -> Iterator[Pair]:
    """Yield two empty databases."""
    with temporary_database(agentobs_server) as one, temporary_database(agentobs_server) as other:
        yield settings_for(agentobs_server, one), settings_for(agentobs_server, other)


async def fill(settings: DatabaseSettings, *changes: str) -> None:
    await migrations.upgrade("0004", settings=settings)
    await fill_old_tables(settings)
    await change(settings, *changes)


async def change(settings: DatabaseSettings, *changes: str) -> None:
    async with connect(settings) as connection:
        for statement in changes:
            await connection.exec_driver_sql(statement)


async def rows_of(settings: DatabaseSettings) -> dict[str, Any]:
    async with connect(settings) as connection:
        return {
            table: sorted((await connection.scalars(text(f"SELECT t::text FROM {table} t"))).all())
            for each in INSTANTS
            for table in (each, f"{each}_original_ids")
        }


async def require_same(locked: DatabaseSettings, online: DatabaseSettings) -> None:
    async with connect(locked) as one, connect(online) as other:
        expected, found = await read_catalog(one), await read_catalog(other)
    for kind in expected:
        assert found[kind] == expected[kind], kind
    assert await rows_of(online) == await rows_of(locked)


async def test_both_ways_lead_to_the_same_catalog_and_rows(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 37)
    locked, online = pair
    for settings in pair:
        await fill(settings)

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


CHILD = "md5('event' || 57)::uuid"
PARENT = "md5('event' || 51)::uuid"
WRITES = {
    "inserted": f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent, started_at, "
    f"parent_event_id) SELECT md5('late' || n)::uuid, 'x', md5('w')::uuid, 'late', "
    f"'2024-05-05'::timestamptz + n * interval '1 hour', {PARENT} FROM generate_series(1, 50) n",
    "of a month that nothing was of": f"INSERT INTO {METRICS} (id, metric_type, measured_at) "
    "VALUES (md5('old')::uuid, 'x', '2019-07-07')",
    "completed": f"UPDATE {EVENTS} SET success = true, quality_score = 0.5 "
    f"WHERE target_agent = 'agent-3'",
    "given another instant": f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    "given another id": f"UPDATE {EVENTS} SET id = md5('another')::uuid WHERE id = {CHILD}",
    "linked to another": f"UPDATE {EVENTS} SET parent_event_id = {PARENT} "
    "WHERE target_agent = 'agent-2'",
    "deleted": f"DELETE FROM {EVENTS} WHERE id = {CHILD}",
    "deleted and inserted again": f"DELETE FROM {METRICS} WHERE id = md5('metric7')::uuid; "
    f"INSERT INTO {METRICS} (id, metric_type, measured_at) "
    "VALUES (md5('metric7')::uuid, 'again', '2024-03-03')",
    "rolled back": f"BEGIN; DELETE FROM {METRICS}; ROLLBACK",
    "as a replica": f"SET session_replication_role = replica; DELETE FROM {METRICS} "
    "WHERE id = md5('metric9')::uuid",
}
MOMENTS = ["copy_rows", "index_partitions", "catch_up", "verify", "swap"]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_is_written_meanwhile_is_there_after_the_swap(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    locked, online = pair
    for settings in pair:
        await fill(settings)
    step = getattr(run, moment)
    written: list[str] = []

    def write_and_go_on(*arguments: Any) -> None:
        if not written:
            for writes in WRITES.values():
                done = psql(online, writes)
                assert done.returncode == 0, done.stderr
            written.append(moment)
        step(*arguments)

    monkeypatch.setattr(run, moment, write_and_go_on)
    await migrations.upgrade_online(settings=online)

    for writes in WRITES.values():
        assert psql(locked, writes).returncode == 0
    await migrations.upgrade(settings=locked)
    assert written == [moment]
    await require_same(locked, online)


# Of rows that were copied already: each is met once more, further on.
LATER = [
    f"UPDATE {EVENTS} SET started_at = '2024-05-20' WHERE id = md5('event' || 5)::uuid",
    f"UPDATE {EVENTS} SET started_at = started_at + '12 hours' WHERE target_agent = 'kept'",
    f"DELETE FROM {EVENTS} WHERE target_agent = 'before'",
    (
        f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent, started_at) VALUES "
        "('00000000-0000-4000-8000-00000000000b', 'x', md5('b')::uuid, 'again', '2024-05-20')"
    ),
]


async def test_a_row_that_moves_ahead_of_the_copy_is_copied_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, online = pair
    for settings in pair:
        await fill(settings)
    monkeypatch.setattr(copying, "BATCH", 50)
    copy_batch, batches = copying._copy_batch, []

    def write_after_the_first(*arguments: Any) -> int:
        rows = copy_batch(*arguments)
        batches.append(rows)
        if len(batches) == 1:
            assert all(psql(online, writes).returncode == 0 for writes in LATER)
        return rows

    monkeypatch.setattr(copying, "_copy_batch", write_after_the_first)
    await migrations.upgrade_online(settings=online)

    assert all(psql(locked, writes).returncode == 0 for writes in LATER)
    await migrations.upgrade(settings=locked)
    assert len(batches) > 2
    await require_same(locked, online)


async def test_children_of_a_row_that_moves_are_compared_when_all_notes_are_worked_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child is copied with its parent's new key while the parent's own note waits its turn."""
    locked, online = pair
    for settings in pair:
        await fill(settings)
    # An update leaves two notes, of the row before and of the row after it.
    monkeypatch.setattr(catching_up, "MOST_AT_ONCE", 2)
    written: list[int] = []
    moves = [
        f"UPDATE {EVENTS} SET success = true WHERE id = {CHILD}",
        f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    ]

    def write_and_go_on(*arguments: Any) -> None:
        if not written:
            written.extend(psql(online, move).returncode for move in moves)
        index_partitions(*arguments)

    monkeypatch.setattr(run, "index_partitions", write_and_go_on)
    await migrations.upgrade_online(settings=online)

    assert [*written, *(psql(locked, move).returncode for move in moves)] == [0, 0, 0, 0]
    await migrations.upgrade(settings=locked)
    await require_same(locked, online)


async def test_children_that_were_copied_before_their_parent_follow_it_when_it_moves(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent with a note is not copied in its turn, and its children are."""
    locked, online = pair
    for settings in pair:
        await fill(settings)
    moves = [
        f"UPDATE {EVENTS} SET success = true WHERE id = {PARENT}",
        f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    ]
    copy_rows = copying.copy_rows

    def copy_between_the_moves(connection: Any, table: Any) -> None:
        if table.name == EVENTS:
            assert psql(online, moves[0]).returncode == 0
            copy_rows(connection, table)
            assert psql(online, moves[1]).returncode == 0
        else:
            copy_rows(connection, table)

    monkeypatch.setattr(run, "copy_rows", copy_between_the_moves)
    await migrations.upgrade_online(settings=online)

    assert all(psql(locked, move).returncode == 0 for move in moves)
    await migrations.upgrade(settings=locked)
    await require_same(locked, online)


@pytest.mark.parametrize("revision", ["0003", "0005", "+1", "0088", "9999"])
async def test_a_revision_that_it_can_not_stop_at_is_refused(pair: Pair, revision: str) -> None:
    online, _ = pair
    await fill(online)

    with pytest.raises(MigrationError, match="an online upgrade ends at 0006 or later"):
        await migrations.upgrade_online(revision, settings=online)

    assert await migrations.current(settings=online) == "0004"


async def test_a_truncate_meanwhile_leaves_what_came_after_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, _ = pair
    await fill(online)
    catch_up = catching_up.catch_up
    emptied: list[int] = []

    def empty_and_go_on(*arguments: Any) -> None:
        if not emptied:
            emptied.append(psql(online, f"TRUNCATE {METRICS}; {AFTER}").returncode)
        catch_up(*arguments)

    monkeypatch.setattr(run, "catch_up", empty_and_go_on)
    await migrations.upgrade_online(settings=online)

    async with connect(online) as connection:
        found = await connection.scalars(text(f"SELECT metric_type FROM {METRICS}"))
        assert (emptied, found.all()) == ([0], ["after"])
        assert await connection.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 404


AFTER = f"INSERT INTO {METRICS} (metric_type, measured_at) VALUES ('after', '2024-03-03')"


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


async def test_the_downgrade_gives_the_former_ids_back(pair: Pair) -> None:
    online, untouched = pair
    for settings in pair:
        await fill(settings)

    await migrations.upgrade_online(settings=online)
    await migrations.downgrade("0004", settings=online)

    query = f"SELECT t::text FROM {EVENTS} t"
    async with connect(online) as one, connect(untouched) as other:
        assert sorted(await one.scalars(text(query))) == sorted(await other.scalars(text(query)))
