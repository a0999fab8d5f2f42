"""Tables that hand-run scripts made are taken over with all their rows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, INSTANTS, METRICS, insert_child, insert_row
from support.scripted import make_scripted
from support.shell import HEAD, agentobs, url_of

from agentobs import migrations
from agentobs.errors import AdoptionRefusedError, MigrationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


async def test_tables_of_the_scripts_are_recorded_and_go_on_to_head_with_their_rows(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await make_scripted(empty)
    parent = await insert_row(connection, EVENTS)
    await insert_child(connection, parent)
    await insert_row(connection, METRICS)

    assert (await migrations.adopt(settings=empty)).is_adopted
    assert await migrations.current(settings=empty) == "0003"
    await migrations.upgrade(settings=empty)

    counts = [await connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in INSTANTS]
    assert counts == [2, 1]


async def test_without_apply_nothing_is_changed(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await make_scripted(empty, "DROP INDEX idx_agent_definitions_type")
    before = await read_catalog(connection)

    result = agentobs("db", "adopt", "--repair", settings=empty)

    assert result.returncode == 0
    assert "to mend: index idx_agent_definitions_type of agent_definitions is missing\n" in (
        result.stdout
    )
    assert (
        "    CREATE INDEX CONCURRENTLY idx_agent_definitions_type ON agent_definitions "
        "USING btree (agent_type);\n"
    ) in result.stdout
    assert "Nothing was changed: run it again with --apply." in result.stdout
    assert await read_catalog(connection) == before


async def test_the_command_takes_over_and_the_upgrade_goes_on(empty: DatabaseSettings) -> None:
    await make_scripted(empty)

    adopted = agentobs("db", "adopt", "--repair", "--apply", settings=empty)
    assert (adopted.returncode, adopted.stdout.splitlines()[-1]) == (
        0,
        "schema public is recorded to be at 0003: run `agentobs db upgrade`",
    )
    upgraded = agentobs("db", "upgrade", settings=empty)
    assert f"schema public is now at {HEAD}" in upgraded.stderr
    assert agentobs("db", "check", settings=empty).returncode == 0


# What a host or a script did, and whether --repair mends it.
MENDED = {
    "an index is missing": ["DROP INDEX idx_agent_transformation_events_context"],
    "an index has another name": [
        "ALTER INDEX idx_agent_definitions_domain RENAME TO definitions_by_domain"
    ],
    "an index has another definition": [
        "DROP INDEX idx_router_performance_metrics_cache",
        "CREATE INDEX idx_router_performance_metrics_cache ON router_performance_metrics (id)",
    ],
    "an index is not valid": [
        (
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'idx_agent_definitions_name'::regclass"
        )
    ],
    "a check is missing": [
        "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_success_rate_check"
    ],
    "a check is another one": [
        "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_success_rate_check",
        (
            "ALTER TABLE agent_definitions ADD CONSTRAINT agent_definitions_success_rate_check "
            "CHECK (success_rate >= 0)"
        ),
    ],
    "a check has another name": [
        (
            "ALTER TABLE agent_definitions RENAME CONSTRAINT agent_definitions_success_rate_check "
            "TO rate_check"
        )
    ],
    "a foreign key is missing": [
        (
            "ALTER TABLE agent_transformation_events "
            "DROP CONSTRAINT agent_transformation_events_parent_event_id_fkey"
        )
    ],
    "a foreign key is not valid": [
        (
            "ALTER TABLE agent_transformation_events "
            "DROP CONSTRAINT agent_transformation_events_agent_definition_id_fkey"
        ),
        (
            "ALTER TABLE agent_transformation_events "
            "ADD CONSTRAINT agent_transformation_events_agent_definition_id_fkey "
            "FOREIGN KEY (agent_definition_id) REFERENCES agent_definitions (id) NOT VALID"
        ),
    ],
    "the unique key is missing": [
        "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_name_version_unique"
    ],
    "a default is missing": ["ALTER TABLE agent_definitions ALTER COLUMN status DROP DEFAULT"],
    "a default is too many": ["ALTER TABLE agent_definitions ALTER domain SET DEFAULT 'general'"],
    "a column takes NULL": ["ALTER TABLE agent_definitions ALTER agent_type DROP NOT NULL"],
    "a column takes no NULL": ["ALTER TABLE agent_definitions ALTER domain SET NOT NULL"],
    "a column is missing": ["ALTER TABLE router_performance_metrics DROP COLUMN cache_age_seconds"],
    "the trigger is missing": [
        "DROP TRIGGER trigger_agent_definitions_updated_at ON agent_definitions"
    ],
    "the trigger is off": ["ALTER TABLE agent_definitions DISABLE TRIGGER ALL"],
    "the trigger is another one": [
        "DROP TRIGGER trigger_agent_definitions_updated_at ON agent_definitions",
        (
            "CREATE TRIGGER trigger_agent_definitions_updated_at BEFORE INSERT "
            "ON agent_definitions "
            "FOR EACH ROW EXECUTE FUNCTION update_agent_definitions_timestamp()"
        ),
    ],
    "function and trigger are missing": [
        "DROP FUNCTION update_agent_definitions_timestamp() CASCADE"
    ],
    "the function is another one": [
        (
            "CREATE OR REPLACE FUNCTION update_agent_definitions_timestamp() RETURNS trigger "
            "LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        )
    ],
    "only the first table is there": [f"DROP TABLE {EVENTS}, {METRICS}"],
    "only the last table is there": [
        f"DROP TABLE {EVENTS}, agent_definitions",
        "DROP FUNCTION update_agent_definitions_timestamp()",
    ],
}


@pytest.mark.parametrize("changes", MENDED.values(), ids=MENDED.keys())
async def test_repair_mends_what_loses_nothing(
    empty: DatabaseSettings, connection: AsyncConnection, changes: list[str]
) -> None:
    await migrations.upgrade("0003", settings=empty)
    wanted = await read_catalog(connection)
    await migrations.downgrade("base", settings=empty)
    await make_scripted(empty, *changes)

    with pytest.raises(AdoptionRefusedError) as refused:
        await migrations.adopt(settings=empty)
    assert refused.value.differences
    assert await migrations.current(settings=empty) is None
    done = await migrations.adopt(repair=True, settings=empty)

    assert done.is_adopted
    assert await migrations.current(settings=empty) == "0003"
    found = await read_catalog(connection)
    for kind in wanted.keys() - {"columns", "functions"}:
        assert found[kind] == wanted[kind], kind
    assert sorted(found["columns"]) == sorted(wanted["columns"])


REFUSED = {
    "a column of another type": (
        "ALTER TABLE agent_definitions ALTER domain TYPE text",
        "column agent_definitions.domain is text, and should be character varying(100)",
        (
            "ALTER TABLE agent_definitions ALTER COLUMN domain TYPE character varying(100) "
            "USING domain::character varying(100)"
        ),
    ),
    "a time without zone": (
        "ALTER TABLE router_performance_metrics ALTER measured_at TYPE timestamp",
        (
            "column router_performance_metrics.measured_at is timestamp without time zone, "
            "and should be timestamp with time zone"
        ),
        (
            "ALTER TABLE router_performance_metrics ALTER COLUMN measured_at TYPE "
            "timestamp with time zone USING measured_at::timestamp with time zone"
        ),
    ),
    "a required column is missing": (
        "ALTER TABLE agent_transformation_events DROP COLUMN started_at",
        "column agent_transformation_events.started_at is missing",
        (
            "ALTER TABLE agent_transformation_events ADD COLUMN started_at "
            "timestamp with time zone DEFAULT now() NOT NULL"
        ),
    ),
    "another primary key": (
        (
            "ALTER TABLE router_performance_metrics "
            "DROP CONSTRAINT router_performance_metrics_pkey, "
            "ADD CONSTRAINT router_performance_metrics_pkey PRIMARY KEY (id, measured_at)"
        ),
        (
            "constraint router_performance_metrics.router_performance_metrics_pkey is "
            "PRIMARY KEY (id, measured_at), and should be PRIMARY KEY (id)"
        ),
        "ALTER TABLE router_performance_metrics DROP CONSTRAINT router_performance_metrics_pkey",
    ),
}


@pytest.mark.parametrize(("change", "words", "way"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_would_change_rows_is_refused_with_the_statement_that_would(
    empty: DatabaseSettings, connection: AsyncConnection, change: str, words: str, way: str
) -> None:
    await make_scripted(empty, change)
    before = await read_catalog(connection)

    result = agentobs("db", "adopt", "--apply", "--repair", settings=empty)

    assert result.returncode == 1
    assert f"differs: {words}\n" in result.stdout
    assert f"    yours to decide: {way};\n" in result.stdout
    assert "Nothing was changed" in result.stderr
    assert await read_catalog(connection) == before


async def test_a_view_in_the_place_of_a_table_is_refused(empty: DatabaseSettings) -> None:
    await make_scripted(
        empty,
        f"ALTER TABLE {METRICS} RENAME TO host_metrics",
        f"CREATE VIEW {METRICS} AS SELECT * FROM host_metrics",
    )

    with pytest.raises(AdoptionRefusedError, match="is a view, and should be a table"):
        await migrations.adopt(repair=True, settings=empty)


# What is taken away, a row that does not allow it to come back, and what mends the rows.
BROKEN = {
    "a CHECK": (
        f"ALTER TABLE {METRICS} DROP CONSTRAINT {METRICS}_confidence_check",
        f"INSERT INTO {METRICS} (metric_type, confidence_score) VALUES ('x', 1.5)",
        f"UPDATE {METRICS} SET confidence_score = 1",
    ),
    "another CHECK": (
        (
            f"ALTER TABLE {METRICS} DROP CONSTRAINT {METRICS}_confidence_check, "
            f"ADD CONSTRAINT {METRICS}_confidence_check CHECK (confidence_score < 2)"
        ),
        f"INSERT INTO {METRICS} (metric_type, confidence_score) VALUES ('x', 1.5)",
        f"UPDATE {METRICS} SET confidence_score = 1",
    ),
    "a foreign key": (
        f"ALTER TABLE {EVENTS} DROP CONSTRAINT {EVENTS}_parent_event_id_fkey",
        (
            f"INSERT INTO {EVENTS} (event_type, correlation_id, target_agent, parent_event_id) "
            "VALUES ('x', gen_random_uuid(), 'x', gen_random_uuid())"
        ),
        f"UPDATE {EVENTS} SET parent_event_id = NULL",
    ),
    "a unique key": (
        "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_name_version_unique",
        (
            "INSERT INTO agent_definitions (agent_name, agent_version, agent_type, yaml_config) "
            "SELECT 'twice', '1.0.0', 'type', '{}' FROM generate_series(1, 2)"
        ),
        "DELETE FROM agent_definitions",
    ),
    "not null": (
        f"ALTER TABLE {EVENTS} ALTER COLUMN target_agent DROP NOT NULL",
        f"INSERT INTO {EVENTS} (event_type, correlation_id) VALUES ('x', gen_random_uuid())",
        f"UPDATE {EVENTS} SET target_agent = 'x'",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_the_rows_break_is_told_and_nothing_is_changed(
    empty: DatabaseSettings, connection: AsyncConnection, what: str
) -> None:
    taken, row, mended = BROKEN[what]
    await make_scripted(empty, taken, row)
    before = await read_catalog(connection)

    with pytest.raises(AdoptionRefusedError, match="and rows break it") as refused:
        await migrations.adopt(repair=True, settings=empty)
    assert len(refused.value.differences) == 1
    assert await read_catalog(connection) == before
    assert await migrations.current(settings=empty) is None

    await connection.execute(text(mended))
    assert (await migrations.adopt(repair=True, settings=empty)).is_adopted


async def test_comments_are_no_reason_to_refuse(empty: DatabaseSettings) -> None:
    await make_scripted(empty, "COMMENT ON TABLE agent_definitions IS 'the host''s own words'")

    found = await migrations.inspect(settings=empty)
    assert {each.kind for each in found.comparison.differences} == {"comment"}
    assert (await migrations.adopt(settings=empty)).is_adopted


async def test_tables_that_a_revision_made_need_no_adoption(at_head: DatabaseSettings) -> None:
    result = agentobs("db", "adopt", "--apply", settings=at_head)

    assert (result.returncode, result.stdout) == (
        0,
        f"schema public is at revision {HEAD}: nothing to adopt\n",
    )


async def test_a_schema_without_the_tables_is_told(empty: DatabaseSettings) -> None:
    with pytest.raises(MigrationError, match="holds none of the tables agent_definitions"):
        await migrations.inspect(settings=empty)


async def test_tables_of_another_role_are_told_before_anything_is_tried(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await make_scripted(empty)
    stranger = f"stranger_{uuid4().hex[:8]}"
    await connection.execute(text(f"CREATE ROLE {stranger} LOGIN PASSWORD '{stranger}'"))
    url = make_url(url_of(empty)).set(username=stranger, password=stranger)
    settings = empty.model_copy(
        update={"database_url": SecretStr(url.render_as_string(hide_password=False))}
    )
    try:
        with pytest.raises(MigrationError, match="and only its owner may change it"):
            await migrations.adopt(settings=settings)
    finally:
        await connection.execute(text(f"DROP ROLE {stranger}"))


async def test_what_of_the_host_is_in_the_way_of_the_partitions_is_named_beforehand(
    empty: DatabaseSettings,
) -> None:
    await make_scripted(
        empty,
        f"CREATE VIEW host_recent AS SELECT * FROM {EVENTS}",
        f"ALTER TABLE {EVENTS} ADD COLUMN tenant text",
    )

    result = agentobs("db", "adopt", "--apply", settings=empty)

    assert result.returncode == 0
    assert "in the way of revision 0005: the event tables can't be rewritten under" in result.stdout
    assert "view host_recent" in result.stdout
    assert f"yours, and left alone: column {EVENTS}.tenant\n" in result.stdout
    refused = agentobs("db", "upgrade", settings=empty)
    assert "view host_recent" in refused.stderr
    assert await migrations.current(settings=empty) == "0004"


async def test_names_of_the_host_reach_the_terminal_without_control_codes(
    empty: DatabaseSettings,
) -> None:
    await make_scripted(empty, f'ALTER TABLE {EVENTS} ADD COLUMN "bell\a\r\x1b[31m" text')

    result = agentobs("db", "adopt", settings=empty)

    assert f"yours, and left alone: column {EVENTS}.bell���" in result.stdout
    assert not {"\a", "\r", "\x1b"} & set(result.stdout)


async def test_what_is_refused_reaches_the_terminal_without_control_codes(
    empty: DatabaseSettings,
) -> None:
    await make_scripted(
        empty, f"ALTER TABLE {EVENTS} ALTER COLUMN target_agent SET DEFAULT E'red\\x1b[31m'"
    )

    result = agentobs("db", "adopt", settings=empty)

    assert result.returncode == 1
    assert "has the default 'red�[31m'" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


async def test_what_the_host_added_is_there_after_the_upgrade(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    reader = f"reader_{uuid4().hex[:8]}"
    await connection.execute(text(f"CREATE ROLE {reader}"))
    await make_scripted(
        empty,
        f"ALTER TABLE {EVENTS} ADD COLUMN tenant text DEFAULT 'one' CHECK (tenant <> '')",
        f"CREATE INDEX host_tenants ON {EVENTS} (tenant)",
        f"GRANT SELECT ON {EVENTS} TO {reader}",
        "CREATE TABLE host_orders (id int PRIMARY KEY)",
    )
    await insert_row(connection, EVENTS, tenant="two")
    try:
        await migrations.adopt(repair=True, settings=empty)
        await migrations.upgrade(settings=empty)
        await migrations.check(settings=empty)

        assert await connection.scalar(text(f"SELECT tenant FROM {EVENTS}")) == "two"
        may_read = f"SELECT has_table_privilege('{reader}', '{EVENTS}', 'SELECT')"
        assert await connection.scalar(text(may_read))
        indexes = [row[1] for row in (await read_catalog(connection))["indexes"]]
        assert {"host_tenants", "host_orders_pkey"} <= set(indexes)
    finally:
        await connection.execute(text(f"DROP OWNED BY {reader}"))
        await connection.execute(text(f"DROP ROLE {reader}"))


async def test_two_at_once_adopt_once(empty: DatabaseSettings) -> None:
    await make_scripted(empty, "DROP INDEX idx_agent_definitions_type")

    both = await asyncio.gather(*(migrations.adopt(repair=True, settings=empty) for _ in range(2)))

    assert sorted(done.is_adopted for done in both) == [False, True]
    assert await migrations.current(settings=empty) == "0003"


async def test_a_revision_that_was_broken_off_is_gone_on_from(
    empty: DatabaseSettings,
) -> None:
    """Scripts made all tables, and an upgrade recorded a revision that has only the first."""
    await make_scripted(empty)
    await migrations.stamp("0001", settings=empty)

    assert (await migrations.adopt(settings=empty)).is_adopted
    assert await migrations.current(settings=empty) == "0003"
