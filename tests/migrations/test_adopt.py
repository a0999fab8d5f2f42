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
from agentobs.errors import MigrationError
from agentobs.migrations import VERSION_TABLE

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


@pytest.mark.parametrize("made", ["0004", "0006", HEAD])
async def test_tables_of_a_revision_that_no_table_records_are_not_taken_for_those_of_scripts(
    empty: DatabaseSettings, connection: AsyncConnection, made: str
) -> None:
    await migrations.upgrade(made, settings=empty)
    await connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    before = await read_catalog(connection)

    result = agentobs("db", "adopt", "--repair", "--apply", settings=empty)

    assert result.returncode == 1
    assert f"record it with `agentobs db stamp {made}`" in result.stderr
    assert await read_catalog(connection) == before


async def test_a_schema_without_the_tables_is_told(empty: DatabaseSettings) -> None:
    with pytest.raises(MigrationError, match="holds none of the tables agent_definitions"):
        await migrations.inspect(settings=empty)


async def test_tables_of_another_role_are_told_before_anything_is_tried(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    # What the rows allow would be asked of them.
    await make_scripted(empty, f"ALTER TABLE {METRICS} DROP CONSTRAINT {METRICS}_confidence_check")
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
