"""What the users of the hand-rolled pool wrote, in plain SQL, still runs at head."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest_asyncio
from support.shell import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentobs import DatabaseSettings

LOG_DECISION = """
    INSERT INTO router_performance_metrics (
        metric_type, selected_agent, confidence_score,
        total_routing_time_us, measured_at
    ) VALUES ($1, $2, $3, $4, NOW())
"""
LOG_EVENT = """
    INSERT INTO agent_transformation_events (
        correlation_id, target_agent, context_snapshot,
        event_type, started_at
    ) VALUES ($1, $2, $3, $4, NOW())
"""
REGISTER = """
    INSERT INTO agent_definitions (agent_name, agent_version, agent_type, yaml_config, capabilities)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (agent_name, agent_version) DO UPDATE SET yaml_config = EXCLUDED.yaml_config
    RETURNING id
"""


@pytest_asyncio.fixture
async def pool(agentobs_database: DatabaseSettings) -> AsyncIterator[Any]:
    """Yield a pool of the driver with its defaults: prepared statements are kept."""
    async with asyncpg.create_pool(url_of(agentobs_database), min_size=1, max_size=2) as found:
        yield found


async def test_a_decision_is_logged_and_read_over_a_window(pool: Any) -> None:
    await pool.execute(LOG_DECISION, "routing_decision", "agent-api-designer", 0.91, 1800)

    row = await pool.fetchrow(
        """
        SELECT count(*) AS decisions, avg(total_routing_time_us) AS mean,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY total_routing_time_us) AS p95
        FROM router_performance_metrics
        WHERE metric_type = 'routing_decision' AND measured_at > NOW() - INTERVAL '1 hour'
        """
    )
    assert dict(row) == {"decisions": 1, "mean": 1800, "p95": 1800}


async def test_an_event_is_logged_completed_by_its_workflow_and_read_in_order(pool: Any) -> None:
    workflow = uuid4()
    await pool.execute(
        LOG_EVENT, workflow, "agent-x", json.dumps({"file": "a.py"}), "transformation_start"
    )
    await pool.execute(
        "UPDATE agent_transformation_events SET success = TRUE, completed_at = NOW(), "
        "total_execution_duration_ms = $2 WHERE correlation_id = $1",
        workflow,
        1200,
    )

    row = await pool.fetchrow(
        "SELECT * FROM agent_transformation_events WHERE correlation_id = $1 ORDER BY started_at",
        workflow,
    )
    assert json.loads(row["context_snapshot"]) == {"file": "a.py"}
    assert (row["success"], row["total_execution_duration_ms"]) == (True, 1200)


async def test_ids_that_a_client_made_by_chance_are_stored_linked_and_found(pool: Any) -> None:
    parent, child, workflow = uuid4(), uuid4(), uuid4()
    insert = (
        "INSERT INTO agent_transformation_events "
        "(id, event_type, correlation_id, target_agent, parent_event_id) "
        "VALUES ($1, 'x', $2, 'a', $3)"
    )
    await pool.execute(insert, parent, workflow, None)
    await pool.execute(insert, child, workflow, parent)
    await pool.execute(
        "UPDATE agent_transformation_events SET success = FALSE WHERE id = $1", child
    )

    rows = await pool.fetch(
        """
        WITH RECURSIVE tree AS (
            SELECT id, 0 AS depth, success FROM agent_transformation_events
            WHERE correlation_id = $1 AND parent_event_id IS NULL
            UNION ALL
            SELECT e.id, depth + 1, e.success
            FROM agent_transformation_events e JOIN tree ON e.parent_event_id = tree.id
        )
        SELECT id, depth, success FROM tree ORDER BY depth
        """,
        workflow,
    )
    assert [tuple(row) for row in rows] == [(parent, 0, None), (child, 1, False)]


async def test_an_agent_is_registered_twice_and_found_by_name_capability_and_document(
    pool: Any,
) -> None:
    document = json.dumps({"domain": "api"})
    first = await pool.fetchval(REGISTER, "agent-x", "1.0.0", "specialist", document, ["api"])
    again = await pool.fetchval(REGISTER, "agent-x", "1.0.0", "specialist", document, ["api"])

    assert first == again
    for condition in (
        "agent_name = 'agent-x' AND is_active = TRUE",
        "capabilities && ARRAY['api', 'sql']",
        """yaml_config @> '{"domain": "api"}'""",
    ):
        query = f"SELECT id FROM agent_definitions WHERE {condition}"
        assert await pool.fetchval(query) == first


async def test_rows_are_copied_by_the_driver(pool: Any) -> None:
    async with pool.acquire() as connection:
        await connection.copy_records_to_table(
            "router_performance_metrics",
            records=[("cache_hit", True), ("cache_miss", False)],
            columns=["metric_type", "cache_hit"],
        )

    rows = await pool.fetch(
        "SELECT metric_type, cache_hit, alternatives_count FROM router_performance_metrics "
        "ORDER BY metric_type"
    )
    assert [tuple(row) for row in rows] == [("cache_hit", True, 0), ("cache_miss", False, 0)]
