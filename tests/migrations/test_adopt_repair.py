"""What `adopt` mends, and what it leaves to somebody to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import EVENTS, METRICS
from support.scripted import make_scripted
from support.shell import agentobs, psql

from agentobs import migrations
from agentobs.errors import AdoptionRefusedError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


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
            "USING domain::text"
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
    "a required column without a default is missing": (
        "ALTER TABLE agent_transformation_events DROP COLUMN target_agent",
        (
            "column agent_transformation_events.target_agent is missing: "
            "fill it in before it is NOT NULL"
        ),
        "ALTER TABLE agent_transformation_events ADD COLUMN target_agent character varying(255)",
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


async def test_the_statement_for_a_text_of_another_type_cuts_no_value_off(
    empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    await make_scripted(
        empty,
        f"ALTER TABLE {METRICS} ALTER metric_type TYPE text",
        f"INSERT INTO {METRICS} (metric_type) VALUES (repeat('y', 150))",
    )
    (difference,) = (await migrations.inspect(settings=empty)).comparison.faults

    done = psql(empty, "; ".join(difference.statements))

    assert "value too long for type character varying(100)" in done.stderr
    length = await connection.scalar(text(f"SELECT max(length(metric_type)) FROM {METRICS}"))
    assert length == 150


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


async def test_rows_that_can_not_be_asked_yet_are_no_reason_to_fail(
    empty: DatabaseSettings,
) -> None:
    """A CHECK of numbers can't be asked of texts: their column is what is told."""
    await make_scripted(
        empty,
        f"ALTER TABLE {METRICS} DROP CONSTRAINT {METRICS}_confidence_check",
        f"ALTER TABLE {METRICS} ALTER COLUMN confidence_score TYPE text",
    )

    with pytest.raises(AdoptionRefusedError, match=r"confidence_score is text, and should be"):
        await migrations.adopt(repair=True, settings=empty)
