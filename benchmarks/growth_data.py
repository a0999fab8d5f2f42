"""A large database at revision 0003, made by SQL in the database itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    import asyncpg

WORKFLOW = 6
"""Events of a workflow: the first has no parent, so that 83 % are nested."""

_PART = 100_000
# Evenly from after the instant $1 to the instant $2, and $3 of them in all.
_NUMBERED = """
    (SELECT n, $1::timestamptz + ($2::timestamptz - $1) * (n / $3::float) AS at
     FROM generate_series($4::integer, $5::integer) AS n) AS numbered
"""
_EVENTS = f"""
    INSERT INTO agent_transformation_events (
        id, event_type, correlation_id, session_id, source_agent, target_agent,
        context_snapshot, context_keys, context_size_bytes, user_request,
        routing_confidence, routing_strategy, total_execution_duration_ms, success,
        quality_score, parent_event_id, started_at, completed_at)
    SELECT md5('e' || n)::uuid, 'transformation_complete', md5('w' || (n - 1) / {WORKFLOW})::uuid,
        md5('s' || (n - 1) / 60)::uuid, 'agent-' || n * 7 % 24,
        'agent-' || floor(power(random(), 2) * 24),
        jsonb_build_object(
            'task', md5('t' || n), 'user', n % 5000, 'team', 'team-' || n % 40,
            'files', (SELECT array_agg('src/' || md5(((n * 7 + f) % 5000)::text))
                      FROM generate_series(1, 10) AS f),
            'history', repeat(md5('h' || n) || ' ', 12)),
        ARRAY['task', 'user', 'team', 'files', 'history'], 1000, md5('r' || (n - 1) / {WORKFLOW}),
        0.8, 'fuzzy_match', floor(random() * 60000), random() < 0.94, 0.87,
        CASE WHEN (n - 1) % {WORKFLOW} <> 0 THEN md5('e' || n - 1)::uuid END, at,
        at + interval '4 seconds'
    FROM {_NUMBERED}
"""  # noqa: S608
_METRICS = f"""
    INSERT INTO router_performance_metrics (
        id, metric_type, correlation_id, user_request_hash, context_hash, selected_agent,
        selection_strategy, confidence_score, alternative_agents, alternatives_count,
        cache_lookup_us, trigger_matching_us, confidence_scoring_us, total_routing_time_us,
        trigger_confidence, context_confidence, capability_confidence, historical_confidence,
        cache_hit, cache_key, cache_age_seconds, measured_at)
    SELECT md5('m' || n)::uuid, 'routing_decision', md5('w' || n)::uuid,
        encode(sha256(('r' || n % 300000)::bytea), 'hex'),
        encode(sha256(('c' || n % 300000)::bytea), 'hex'),
        'agent-' || floor(power(random(), 2) * 24), 'fuzzy', 0.82,
        jsonb_build_array(jsonb_build_object('agent', 'agent-' || n % 24, 'confidence', 0.6)),
        1, 80, 900, 700, 1000 + floor(random() * 99000), 0.9, 0.8, 0.7, 0.6, n % 3 <> 0,
        'route:' || n, n % 3600, at
    FROM {_NUMBERED}
"""  # noqa: S608
_INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
    FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
    WHERE relname IN ('agent_transformation_events', 'router_performance_metrics')
      AND NOT indisprimary
"""


async def fill(
    connection: asyncpg.Connection, rows: int, first_instant: datetime, last_instant: datetime
) -> None:
    """Fill both event tables of a database at 0003 with so many rows each, within that time."""
    async with _without_indexes(connection):
        for first in range(1, rows + 1, _PART):
            last = min(first + _PART - 1, rows)
            for statement in (_EVENTS, _METRICS):
                await connection.execute(statement, first_instant, last_instant, rows, first, last)
    await connection.execute("VACUUM (ANALYZE)")


@asynccontextmanager
async def _without_indexes(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Build the indexes after the rows, which is a tenth of the time."""
    indexes = await connection.fetch(_INDEXES)
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    yield
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for index in indexes:
        await connection.execute(index["definition"])
