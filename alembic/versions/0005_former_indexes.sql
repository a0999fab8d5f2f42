-- The indexes that the partitioned tables do without: the next revision has others in their place.
CREATE INDEX idx_agent_transformation_events_target
ON agent_transformation_events (target_agent)


CREATE INDEX idx_agent_transformation_events_source
ON agent_transformation_events (source_agent)


CREATE INDEX idx_agent_transformation_events_type
ON agent_transformation_events (event_type)


CREATE INDEX idx_agent_transformation_events_started_at
ON agent_transformation_events (started_at DESC)


CREATE INDEX idx_agent_transformation_events_success_time
ON agent_transformation_events (success, started_at DESC) WHERE success IS NOT NULL


CREATE INDEX idx_agent_transformation_events_performance
ON agent_transformation_events (target_agent, total_execution_duration_ms, quality_score)


CREATE INDEX idx_agent_transformation_events_context
ON agent_transformation_events USING gin (context_snapshot)


CREATE INDEX idx_router_performance_metrics_measured_at
ON router_performance_metrics (measured_at DESC)


CREATE INDEX idx_router_performance_metrics_type_time
ON router_performance_metrics (metric_type, measured_at DESC)


CREATE INDEX idx_router_performance_metrics_agent_time
ON router_performance_metrics (selected_agent, measured_at DESC)


CREATE INDEX idx_router_performance_metrics_cache
ON router_performance_metrics (cache_hit, cache_age_seconds) WHERE cache_hit IS NOT NULL


CREATE INDEX idx_router_performance_metrics_timing
ON router_performance_metrics (total_routing_time_us, measured_at DESC)


CREATE INDEX idx_router_performance_metrics_prediction
ON router_performance_metrics (confidence_score, actual_quality_score, prediction_error) WHERE selection_validated = TRUE


CREATE INDEX idx_router_performance_metrics_request_hash
ON router_performance_metrics (user_request_hash, context_hash)


CREATE INDEX idx_router_performance_metrics_alternatives
ON router_performance_metrics USING gin (alternative_agents)


CREATE INDEX idx_router_performance_metrics_feedback
ON router_performance_metrics (feedback_provided, feedback_type) WHERE feedback_provided = TRUE
