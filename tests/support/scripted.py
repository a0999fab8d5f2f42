"""Databases as hand-run SQL scripts made them: the tables of 0003, and no word of a revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text
from support.shell import connect

from agentobs import migrations

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

_FORGET = """
DO $$
DECLARE
    commented record;
BEGIN
    DROP TABLE agentobs_alembic_version;
    -- Scripts comment on next to nothing.
    FOR commented IN
        SELECT objoid::regclass AS name, attname FROM pg_description
        JOIN pg_class ON pg_class.oid = objoid AND relnamespace = current_schema()::regnamespace
        LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0
        WHERE classoid = 'pg_class'::regclass
    LOOP
        IF commented.attname IS NULL THEN
            EXECUTE format('COMMENT ON TABLE %s IS NULL', commented.name);
        ELSE
            EXECUTE format('COMMENT ON COLUMN %s.%I IS NULL', commented.name, commented.attname);
        END IF;
    END LOOP;
END
$$
"""


async def make_scripted(settings: DatabaseSettings, *changes: str) -> None:
    """Make the tables, and run what a host did to them since."""
    await migrations.upgrade("0003", settings=settings)
    async with connect(settings) as connection:
        await connection.execute(text(_FORGET))
        for change in changes:
            await connection.exec_driver_sql(change)


# Months with a gap, instants that no key holds, keys by time and by chance, a clock that is off.
_ROWS = """
INSERT INTO agent_definitions (id, agent_name, agent_type, yaml_config)
VALUES ('00000000-0000-4000-8000-000000000001', 'agent-x', 'specialist', '{}');
INSERT INTO agent_transformation_events
    (id, event_type, correlation_id, target_agent, context_snapshot, agent_definition_id,
     started_at)
SELECT md5('event' || n)::uuid, 'x', md5('workflow' || n / 10)::uuid, 'agent-' || n % 7,
       jsonb_build_object('n', n), '00000000-0000-4000-8000-000000000001',
       '2024-01-31 23:00:00+00'::timestamptz + n * interval '7 hours'
FROM generate_series(1, 400) AS n;
INSERT INTO agent_transformation_events (id, event_type, correlation_id, target_agent, started_at)
VALUES ('018d5f00-0000-7000-8000-000000000001', 'x', md5('kept')::uuid, 'kept',
        to_timestamp(x'018d5f000000'::bigint / 1000.0)),
       ('018d5f00-0000-7000-8000-000000000002', 'x', md5('far')::uuid, 'far', '2025-05-05'),
       ('00000000-0000-4000-8000-00000000000a', 'x', md5('never')::uuid, 'never', 'infinity'),
       ('00000000-0000-4000-8000-00000000000b', 'x', md5('before')::uuid, 'before', '1950-01-01');
UPDATE agent_transformation_events child SET parent_event_id = md5('event' || n - n % 10 + 1)::uuid
FROM generate_series(1, 400) AS n
WHERE child.id = md5('event' || n)::uuid AND n % 10 > 1;
INSERT INTO router_performance_metrics (id, metric_type, selected_agent, measured_at)
SELECT md5('metric' || n)::uuid, 'routing_decision', 'agent-' || n % 5,
       '2024-02-01 00:00:00+00'::timestamptz + n * interval '3 hours'
FROM generate_series(1, 400) AS n;
"""


async def fill_old_tables(settings: DatabaseSettings) -> None:
    """Write the same rows each time, as old code wrote them."""
    async with connect(settings) as connection:
        for statement in _ROWS.strip().split(";\n"):
            await connection.exec_driver_sql(statement.removesuffix(";"))
