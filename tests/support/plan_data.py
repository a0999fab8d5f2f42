"""A year of rows, made by the server itself, on which plans are told: see `fill`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import text
from support.event_rows import EVENTS, METRICS
from support.shell import connect

from agentobs.maintenance import Month, Policy, maintain

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

CLOSED = 12
"""So many months lie behind this one."""
ROWS_A_MONTH = 15_400
ROWS = (CLOSED + 1) * ROWS_A_MONTH
"""In each of the two tables, spread evenly from the first month's beginning to now."""

# 200 agents, each with four versions, the last of them active.
_DEFINITIONS = """
INSERT INTO agent_definitions (
    agent_name, agent_version, agent_type, yaml_config, capabilities, triggers,
    success_rate, quality_score, avg_execution_time_ms, is_active)
SELECT 'agent-' || agent, version || '.0.0', 'specialist',
       jsonb_build_object(
           'name', 'agent-' || agent, 'limits', jsonb_build_object('tokens', 1000 * agent),
           'checklist', to_jsonb(ARRAY(
               SELECT md5(agent || '/' || version || '/' || n) FROM generate_series(1, 25) n))),
       ARRAY['can-' || agent % 100, 'can-' || 100 + agent % 50],
       ARRAY['when ' || agent, 'whenever ' || agent % 100],
       (agent * 37 % 1000) / 1000.0, (agent * 53 % 1000) / 1000.0, agent * 10, version = 4
FROM generate_series(1, 200) agent, generate_series(1, 4) version
"""
# Five events make a workflow, nested in its first one, and four workflows a conversation.
_SEEDS = """
CREATE UNLOGGED TABLE seeds AS
SELECT n, at, agentobs_uuid7_at(at) AS id, 'agent-' || 1 + n * 7 % 200 AS agent,
       md5('workflow' || n / 5)::uuid AS workflow, md5('conversation' || n / 20)::uuid AS session
FROM (SELECT n, CAST(:first AS timestamptz) + n * ((CAST(:now AS timestamptz) - :first) / :rows)
                AS at
      FROM generate_series(0, :rows - 1) n OFFSET 0) AS instants
"""
_EVENTS = """
INSERT INTO agent_transformation_events (
    id, event_type, correlation_id, session_id, source_agent, target_agent, context_snapshot,
    user_request, routing_confidence, total_execution_duration_ms, success, quality_score,
    agent_definition_id, parent_event_id, started_at, completed_at)
SELECT seeds.id, 'transformation_complete', seeds.workflow, seeds.session, 'agent-coordinator',
       seeds.agent,
       jsonb_build_object('trace', md5('trace' || seeds.n), 'task', repeat('sort ', 30),
                          'user', jsonb_build_object('id', seeds.n / 5 % 5000, 'plan', 'free')),
       repeat('please ', 20), 0.8, 100 + seeds.n * 31 % 5000, seeds.n % 17 > 0, 0.9,
       definitions.id, CASE WHEN seeds.n % 5 > 0 THEN roots.id END,
       seeds.at, seeds.at + interval '1 second'
FROM seeds
JOIN seeds roots ON roots.n = seeds.n - seeds.n % 5
JOIN agent_definitions definitions
  ON definitions.agent_name = seeds.agent AND definitions.is_active
ORDER BY seeds.n
"""
# Of fifty decisions one has a person's feedback, and three in four an outcome.
_METRICS = """
INSERT INTO router_performance_metrics (
    id, metric_type, correlation_id, user_request_hash, context_hash, selected_agent,
    selection_strategy, confidence_score, alternative_agents, alternatives_count,
    total_routing_time_us, trigger_confidence, context_confidence, capability_confidence,
    historical_confidence, cache_hit, cache_key, selection_validated, actual_success,
    actual_quality_score, prediction_error, feedback_provided, feedback_type, measured_at)
SELECT id, 'routing_decision', CASE WHEN n % 10 > 0 THEN md5('decision' || n)::uuid END,
       md5('request' || n % 50000) || md5('request'), md5('context' || n % 50000) || md5('context'),
       agent, 'fuzzy', 0.8, '[{"agent": "agent-0", "confidence": 0.5, "reason": "near"}]', 1,
       1000 + n * 7919 % 150000, 0.9, 0.8, 0.7, 0.6, n % 3 > 0, 'route:' || md5('key' || n),
       n % 4 > 0, n % 4 > 0, CASE WHEN n % 4 > 0 THEN 0.75 END, CASE WHEN n % 4 > 0 THEN 0.05 END,
       n % 50 = 0,
       CASE WHEN n % 50 = 0
            THEN (ARRAY['positive', 'negative', 'correction'])[1 + n / 50 % 3] END, at
FROM seeds
ORDER BY n
"""


def closed_months(now: datetime) -> list[Month]:
    """Return the months behind that of `now`, the oldest first."""
    year, number = divmod(now.year * 12 + now.month - 1 - CLOSED, 12)
    return [*Month(year, number + 1).and_following(CLOSED - 1)]


async def fill(settings: DatabaseSettings) -> datetime:
    """Make the months and their rows, vacuum and analyze; return the instant of the youngest."""
    now = datetime.now(UTC)
    first = closed_months(now)[0].first
    await maintain(Policy(now=first, ahead=CLOSED), settings=settings)
    bounds = {"first": first, "now": now, "rows": ROWS}
    async with connect(settings) as connection:
        await connection.execute(text(_DEFINITIONS))
        await connection.execute(text(_SEEDS), bounds)
        await connection.execute(text("CREATE UNIQUE INDEX ON seeds (n)"))
        await connection.execute(text("VACUUM (ANALYZE) seeds, agent_definitions"))
        await asyncio.gather(
            _fill_table(settings, EVENTS, _EVENTS), _fill_table(settings, METRICS, _METRICS)
        )
        await connection.execute(text("DROP TABLE seeds"))
    return now


async def _fill_table(settings: DatabaseSettings, table: str, statement: str) -> None:
    async with connect(settings) as connection:
        # What a crash of the server would lose is made anew anyway.
        await connection.execute(text("SET synchronous_commit = off"))
        await connection.execute(text(statement))
        # By name, so that the root is analyzed too, which autovacuum leaves alone.
        await connection.execute(text(f"VACUUM (ANALYZE) {table}"))
