"""The catalogs that ship with the revisions are what the revisions make, on whatever server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.roles import roles
from support.shell import connect

from agentobs import migrations
from agentobs.migrations.comparison import compare, expected_catalog, read_catalog
from agentobs.migrations.comparison.expected import expected_file
from agentobs.migrations.connection import quoted
from docs.catalogs import as_text, read_all

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.migrations.comparison import Comparison


async def compare_head(connection: AsyncConnection) -> Comparison:
    return compare(expected_catalog("head"), await connection.run_sync(read_catalog))


async def test_the_file_is_what_the_revisions_make(empty: DatabaseSettings) -> None:
    assert expected_file().read_text(encoding="utf-8") == as_text(await read_all(empty)), (
        "write it anew with `python -m docs.catalogs`"
    )


# The end of a word of ours, a reserved word, one that is quoted.
@pytest.mark.parametrize("schema", ["obs", "user", 'Agent "Obs"', "a.b$c"])
async def test_a_schema_of_whatever_name_has_no_differences(
    empty: DatabaseSettings, connection: AsyncConnection, schema: str
) -> None:
    settings = empty.model_copy(update={"schema_name": schema})
    await migrations.upgrade(settings=settings)
    await connection.execute(text(f"SET search_path = {quoted(schema)}"))

    assert await compare_head(connection) == compare(
        expected_catalog("head"), expected_catalog("head")
    )


HARM = {
    (
        "ALTER TABLE agent_transformation_events "
        "DROP CONSTRAINT agent_transformation_events_agent_definition_id_fkey"
    ): (
        "foreign key agent_transformation_events."
        "agent_transformation_events_agent_definition_id_fkey is missing"
    ),
    "ALTER FUNCTION update_agent_definitions_timestamp() STABLE": (
        "function update_agent_definitions_timestamp() is another one"
    ),
    "ALTER FUNCTION agentobs_refuse_instant(timestamptz) VOLATILE": (
        "function agentobs_refuse_instant(timestamp with time zone) is another one"
    ),
    "ALTER FUNCTION agentobs_uuid7_prefix(timestamptz) STABLE": (
        "function agentobs_uuid7_prefix(timestamp with time zone) is another one"
    ),
    "ALTER FUNCTION agentobs_lock_parents(boolean) RESET search_path": (
        "function agentobs_lock_parents(boolean) is another one"
    ),
    "DROP FUNCTION agentobs_require_parents(uuid[])": (
        "function agentobs_require_parents(uuid[]) is missing"
    ),
    "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_success_rate_check": (
        "constraint agent_definitions.agent_definitions_success_rate_check is missing"
    ),
    "DROP INDEX idx_agent_definitions_yaml_paths": (
        "index idx_agent_definitions_yaml_paths of agent_definitions is missing"
    ),
    "ALTER TABLE router_performance_metrics ALTER COLUMN measured_at DROP NOT NULL": (
        "column router_performance_metrics.measured_at takes NULL, and should not"
    ),
    "ALTER TABLE agent_definitions DISABLE TRIGGER trigger_agent_definitions_updated_at": (
        "trigger agent_definitions.trigger_agent_definitions_updated_at "
        "is not enabled as it should be"
    ),
    "COMMENT ON COLUMN agent_definitions.domain IS NULL": (
        "comment of column agent_definitions.domain is missing"
    ),
    "ALTER TABLE agent_definitions ALTER COLUMN status SET DEFAULT 'x'": (
        "column agent_definitions.status has the default 'x'::character varying, "
        "and should have 'active'::character varying"
    ),
}


@pytest.mark.parametrize(("harm", "words"), HARM.items())
async def test_what_is_not_as_it_should_be_at_head_is_told_and_mended_by_its_statements(
    agentobs_database: DatabaseSettings, harm: str, words: str
) -> None:
    async with connect(agentobs_database) as connection:
        await connection.execute(text(harm))
        (difference,) = (await compare_head(connection)).differences
        assert str(difference) == words

        for statement in difference.statements:
            await connection.exec_driver_sql(statement)
        assert (await compare_head(connection)).differences == ()


async def test_a_function_that_is_made_again_has_the_owner_and_the_callers_that_it_had(
    agentobs_database: DatabaseSettings,
) -> None:
    """Made by a superuser, it would run as one."""
    function = "agentobs_require_parents(uuid[])"
    facts = text(
        "SELECT proowner::regrole::text, proacl::text FROM pg_proc "
        "WHERE proname = 'agentobs_require_parents'"
    )
    async with (
        roles(agentobs_database, "owner") as (name,),
        connect(agentobs_database) as connection,
    ):
        role = quoted(name)
        await connection.execute(text(f"ALTER TABLE agent_transformation_events OWNER TO {role}"))
        await connection.execute(text(f"ALTER FUNCTION {function} OWNER TO {role}"))
        before = (await connection.execute(facts)).one()
        await connection.execute(text(f"DROP FUNCTION {function}"))
        (missing,) = (await compare_head(connection)).differences
        for statement in missing.statements:
            await connection.exec_driver_sql(statement)

        assert before[0] == role
        assert (await connection.execute(facts)).one() == before


async def test_a_lost_index_of_partitions_is_begun_and_told_until_all_of_them_have_it(
    agentobs_database: DatabaseSettings,
) -> None:
    index = "idx_agent_transformation_events_target_newest"
    async with connect(agentobs_database) as connection:
        await connection.execute(text(f"DROP INDEX {index}"))
        (missing,) = (await compare_head(connection)).differences
        for statement in missing.statements:
            await connection.exec_driver_sql(statement)
        (begun,) = (await compare_head(connection)).differences

    subject = f"index {index} of agent_transformation_events"
    assert str(missing) == f"{subject} is missing"
    assert (str(begun), begun.statements) == (
        f"{subject} is not valid: partitions lack theirs",
        (),
    )


async def test_what_a_host_adds_is_told_apart(agentobs_database: DatabaseSettings) -> None:
    async with connect(agentobs_database) as connection:
        for statement in (
            "ALTER TABLE agent_definitions ADD COLUMN team text CHECK (team <> '')",
            "CREATE INDEX host_index ON router_performance_metrics (cache_key)",
            "CREATE TABLE host_orders (id int PRIMARY KEY)",
        ):
            await connection.execute(text(statement))
        found = await compare_head(connection)

    assert found.differences == ()
    assert sorted(map(str, found.additions)) == [
        "column agent_definitions.team",
        "constraint agent_definitions.agent_definitions_team_check",
        "index host_index of router_performance_metrics",
    ]
