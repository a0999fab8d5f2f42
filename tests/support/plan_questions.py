"""The questions that the tables are asked, as SQL, each with the index that answers it."""

from __future__ import annotations

from support.event_rows import EVENTS, METRICS

EVENT_INDEX, METRIC_INDEX = f"idx_{EVENTS}", f"idx_{METRICS}"
PKEYS = {EVENTS: f"{EVENTS}_pkey", METRICS: f"{METRICS}_pkey"}
BRINS = {EVENTS: f"{EVENT_INDEX}_started_at_brin", METRICS: f"{METRIC_INDEX}_measured_at_brin"}
AGENT = {EVENTS: "target_agent", METRICS: "selected_agent"}
BY_AGENT = {EVENTS: f"{EVENT_INDEX}_target_newest", METRICS: f"{METRIC_INDEX}_agent_newest"}
WORKFLOW = "CAST(md5('workflow7777') AS uuid)"

_BEST_FIRST = "ORDER BY success_rate DESC NULLS LAST, quality_score DESC NULLS LAST"
# What follows SELECT * FROM agent_definitions.
OF_DEFINITIONS = {
    "agent_definitions_pkey": "WHERE id = '01890000-0000-7000-8000-000000000000'",
    "agent_definitions_name_version_unique": (
        "WHERE agent_name = 'agent-7' AND is_active ORDER BY created_at DESC LIMIT 1"
    ),
    "idx_agent_definitions_capabilities": (
        f"WHERE capabilities && ARRAY['can-7', 'can-8'] AND is_active {_BEST_FIRST}"
    ),
    "idx_agent_definitions_triggers": (
        f"WHERE triggers && ARRAY['when 7', 'when 8'] AND is_active {_BEST_FIRST}"
    ),
    "idx_agent_definitions_yaml_paths": """WHERE yaml_config @> '{"limits": {"tokens": 7000}}'""",
    # NULLS LAST would not be the order of the index.
    "idx_agent_definitions_performance": (
        "WHERE is_active AND success_rate IS NOT NULL "
        "ORDER BY success_rate DESC, quality_score DESC, avg_execution_time_ms LIMIT 10"
    ),
}
# Each with the rows that there are.
OF_WHAT_BELONGS_TOGETHER = {
    "events of a workflow": (
        EVENTS,
        f"correlation_id = {WORKFLOW} ORDER BY id",
        f"{EVENT_INDEX}_correlation",
        5,
    ),
    "events of a session": (
        EVENTS,
        "session_id = CAST(md5('conversation777') AS uuid) ORDER BY id",
        f"{EVENT_INDEX}_session",
        20,
    ),
    "metrics of a workflow": (
        METRICS,
        "correlation_id = CAST(md5('decision7777') AS uuid)",
        f"{METRIC_INDEX}_correlation",
        1,
    ),
}
TREE = f"""
WITH RECURSIVE tree AS (
    SELECT id, target_agent, 0 AS depth FROM {EVENTS}
    WHERE correlation_id = {WORKFLOW} AND parent_event_id IS NULL
    UNION ALL
    SELECT event.id, event.target_agent, depth + 1
    FROM {EVENTS} AS event JOIN tree ON event.parent_event_id = tree.id)
SELECT * FROM tree ORDER BY id
"""
# Of a window of keys, which the test fills in.
OF_WINDOWS = {
    "executions, success, durations and quality of each agent": (
        EVENTS,
        f"""
        SELECT target_agent, count(*), avg(success::int), avg(total_execution_duration_ms),
               percentile_cont(0.95) WITHIN GROUP (ORDER BY total_execution_duration_ms),
               avg(quality_score)
        FROM {EVENTS} WHERE {{window}} GROUP BY target_agent
        """,
    ),
    "percentiles of the router": (
        METRICS,
        f"""
        SELECT avg(total_routing_time_us), percentile_cont(ARRAY[0.5, 0.95, 0.99])
                   WITHIN GROUP (ORDER BY total_routing_time_us)
        FROM {METRICS} WHERE {{window}}
        """,
    ),
    "hit rate of the cache": (
        METRICS,
        f"SELECT avg(cache_hit::int) FROM {METRICS} WHERE {{window}}",
    ),
    "share over 100 ms": (
        METRICS,
        f"SELECT avg((total_routing_time_us >= 100000)::int) FROM {METRICS} WHERE {{window}}",
    ),
    "confidence components of each agent": (
        METRICS,
        f"""
        SELECT selected_agent, avg(trigger_confidence), avg(context_confidence),
               avg(capability_confidence), avg(historical_confidence)
        FROM {METRICS} WHERE {{window}} GROUP BY selected_agent
        """,
    ),
    "calibration": (
        METRICS,
        f"""
        SELECT selected_agent, count(*), avg(confidence_score), avg(actual_quality_score),
               avg(prediction_error)
        FROM {METRICS} WHERE {{window}} AND selection_validated GROUP BY selected_agent
        """,
    ),
    "repeated requests": (
        METRICS,
        f"""
        SELECT user_request_hash, context_hash, count(*)
        FROM {METRICS} WHERE {{window}} AND user_request_hash IS NOT NULL
        GROUP BY user_request_hash, context_hash HAVING count(*) > 1
        """,
    ),
}
OF_FEEDBACK = {
    "by type": f"""
        SELECT feedback_type, count(*) FROM {METRICS}
        WHERE feedback_provided AND {{window}} GROUP BY feedback_type
    """,
    "newest corrections": f"""
        SELECT * FROM {METRICS}
        WHERE feedback_provided AND feedback_type = 'correction' AND {{window}}
        ORDER BY id DESC LIMIT 10
    """,
}
