"""From revision 0004 on, updated_at of a definition says when the definition changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.shell import connect_in_transaction

from agentobs import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

CHANGES = {
    "id": "gen_random_uuid()",
    "agent_name": "'another'",
    "agent_version": "'2.0.0'",
    "agent_type": "'coordinator'",
    "yaml_config": """'{"name": "another"}'""",
    "parsed_metadata": "'{}'",
    "capabilities": "'{plan}'",
    "domain": "'debugging'",
    "triggers": "'{go}'",
    "trigger_patterns": "'{^go}'",
    "is_active": "false",
    "status": "'deprecated'",
    "registry_path": "'/agents/another.yaml'",
    "definition_hash": "'abc'",
    "created_at": "'1999-01-01 00:00:00+00'",
    "updated_at": "'1999-01-01 00:00:00+00'",
}
NO_CHANGES = {
    "last_loaded_at": "now()",
    "avg_execution_time_ms": "120",
    "success_rate": "0.9",
    "quality_score": "0.8",
}
# Long enough to be stored out of line, and random enough not to be compressed.
LONG = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i)"
INSERT = """
    INSERT INTO agent_definitions
        (agent_name, agent_type, yaml_config, parsed_metadata, created_at, updated_at)
    VALUES ('an-agent', 'specialist', '{"name": "an-agent"}', NULL,
            '2000-01-01 00:00:00+00', '2000-01-01 00:00:00+00')
"""
UPDATED_AT = text("""
    SELECT CASE updated_at WHEN now() THEN 'moved'
                           WHEN '2000-01-01 00:00:00+00' THEN 'stayed' ELSE updated_at::text END
    FROM agent_definitions
""")


@pytest_asyncio.fixture
async def registry(shared_0004: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a transaction, which is rolled back, with one definition, of the year 2000."""
    async with connect_in_transaction(shared_0004) as found:
        await found.exec_driver_sql(INSERT)
        yield found


async def update(registry: AsyncConnection, assignments: str) -> str:
    """Update the definition, and tell whether updated_at has moved."""
    await registry.exec_driver_sql(f"UPDATE agent_definitions SET {assignments}")
    return str(await registry.scalar(UPDATED_AT))


@pytest.mark.parametrize("column", CHANGES)
async def test_updated_at_moves_with_a_column_of_the_definition(
    registry: AsyncConnection, column: str
) -> None:
    assert await update(registry, f"{column} = {CHANGES[column]}") == "moved"


@pytest.mark.parametrize("column", NO_CHANGES)
async def test_updated_at_stays_with_a_score_or_a_look_at_the_definition(
    registry: AsyncConnection, column: str
) -> None:
    assert await update(registry, f"{column} = {NO_CHANGES[column]}") == "stayed"


async def test_every_column_either_moves_updated_at_or_does_not(registry: AsyncConnection) -> None:
    columns = await registry.scalars(
        text("SELECT attname FROM pg_attribute WHERE attnum > 0 AND attrelid = :table ::regclass"),
        {"table": "agent_definitions"},
    )

    assert set(columns) == CHANGES.keys() | NO_CHANGES.keys()


async def test_what_does_not_move_updated_at_is_written_all_the_same(
    registry: AsyncConnection,
) -> None:
    await update(registry, "last_loaded_at = now(), avg_execution_time_ms = 7, success_rate = 0.5")

    written = await registry.execute(
        text(
            "SELECT last_loaded_at = now(), avg_execution_time_ms, success_rate::float "
            "FROM agent_definitions"
        )
    )
    assert tuple(written.one()) == (True, 7, 0.5)


async def test_updated_at_moves_where_a_score_and_the_definition_change_together(
    registry: AsyncConnection,
) -> None:
    assert await update(registry, "quality_score = 0.8, domain = 'debugging'") == "moved"


async def test_updated_at_stays_where_an_update_changes_nothing(registry: AsyncConnection) -> None:
    assert await update(registry, ", ".join(f"{name} = {name}" for name in CHANGES)) == "stayed"


async def test_updated_at_stays_where_a_document_is_written_anew_as_it_was(
    registry: AsyncConnection,
) -> None:
    assert await update(registry, """yaml_config = '{ "name":"an-agent" }'""") == "stayed"


@pytest.mark.parametrize("assignment", ["domain = NULL", "registry_path = ''"])
async def test_updated_at_moves_where_a_value_becomes_null_and_where_null_becomes_a_value(
    registry: AsyncConnection, assignment: str
) -> None:
    await registry.exec_driver_sql("DELETE FROM agent_definitions")
    await registry.exec_driver_sql(
        INSERT.replace("parsed_metadata,", "domain,").replace("NULL", "''")
    )

    assert await update(registry, assignment) == "moved"


async def test_updated_at_stays_where_a_long_text_is_written_anew_as_it_was(
    registry: AsyncConnection,
) -> None:
    await registry.exec_driver_sql("DELETE FROM agent_definitions")
    await registry.exec_driver_sql(INSERT.replace("NULL", f"to_jsonb({LONG})"))

    assert await update(registry, "last_loaded_at = now()") == "stayed"
    assert await update(registry, f"parsed_metadata = to_jsonb({LONG})") == "stayed"
    assert await update(registry, f"parsed_metadata = to_jsonb({LONG} || 'x')") == "moved"


async def test_a_column_of_the_host_moves_updated_at_though_its_type_knows_no_equality(
    registry: AsyncConnection,
) -> None:
    await registry.exec_driver_sql("ALTER TABLE agent_definitions ADD COLUMN notes json")

    assert await update(registry, "quality_score = 0.8") == "stayed"
    assert await update(registry, """notes = '{"a": 1}'""") == "moved"


async def test_a_generated_column_of_the_host_does_not_move_updated_at_by_itself(
    registry: AsyncConnection,
) -> None:
    await registry.exec_driver_sql(
        "ALTER TABLE agent_definitions "
        "ADD COLUMN shouted text GENERATED ALWAYS AS (upper(agent_name)) STORED"
    )

    assert await update(registry, "quality_score = 0.5") == "stayed"
    assert await update(registry, "domain = 'elsewhere'") == "moved"


async def test_a_default_of_a_hosts_new_column_does_not_move_updated_at(
    registry: AsyncConnection,
) -> None:
    await registry.exec_driver_sql(
        "ALTER TABLE agent_definitions "
        "ADD COLUMN notes json DEFAULT '{}', ADD COLUMN number integer DEFAULT 3"
    )

    assert await update(registry, "quality_score = 0.8") == "stayed"
    assert await update(registry, "number = 4") == "moved"


async def test_a_column_that_the_host_has_dropped_does_not_move_updated_at(
    registry: AsyncConnection,
) -> None:
    await registry.exec_driver_sql("DELETE FROM agent_definitions")
    await registry.exec_driver_sql("ALTER TABLE agent_definitions ADD notes json DEFAULT '1'")
    await registry.exec_driver_sql(INSERT)
    await registry.exec_driver_sql("ALTER TABLE agent_definitions DROP COLUMN notes")

    assert await update(registry, "quality_score = 0.8") == "stayed"
    assert await update(registry, "domain = 'debugging'") == "moved"


async def test_updated_at_is_never_what_a_writer_says(registry: AsyncConnection) -> None:
    said = "updated_at = '1999-01-01 00:00:00+00'"

    assert await update(registry, f"{said}, quality_score = 0.8, domain = 'debugging'") == "moved"
    assert await update(registry, said) == "moved"


async def test_an_upsert_moves_updated_at_like_an_update(registry: AsyncConnection) -> None:
    upsert = f"{INSERT} ON CONFLICT (agent_name, agent_version) DO UPDATE SET "

    await registry.exec_driver_sql(f"{upsert} last_loaded_at = now()")
    assert await registry.scalar(UPDATED_AT) == "stayed"
    await registry.exec_driver_sql(f"{upsert} domain = 'debugging'")
    assert await registry.scalar(UPDATED_AT) == "moved"


async def test_the_trigger_rests_on_no_search_path(registry: AsyncConnection) -> None:
    await registry.exec_driver_sql("SET LOCAL search_path = ''")
    await registry.exec_driver_sql("UPDATE public.agent_definitions SET quality_score = 0.8")
    await registry.exec_driver_sql("SET LOCAL search_path = public")

    assert await registry.scalar(UPDATED_AT) == "stayed"


async def test_before_0004_and_after_its_downgrade_updated_at_moves_with_every_update(
    empty: DatabaseSettings,
) -> None:
    for move in (migrations.upgrade, migrations.downgrade):
        await move("0003", settings=empty)
        async with connect_in_transaction(empty) as registry:
            await registry.exec_driver_sql(INSERT)
            assert await update(registry, "last_loaded_at = now()") == "moved"
        await migrations.upgrade("0004", settings=empty)
