"""The words that the open varchar columns hold; readers must accept others too."""

from __future__ import annotations

from enum import StrEnum


class AgentStatus(StrEnum):
    """The life of an agent definition (`agent_definitions.status`)."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    TESTING = "testing"


class EventType(StrEnum):
    """How far a transformation has come (`agent_transformation_events.event_type`)."""

    START = "transformation_start"
    COMPLETE = "transformation_complete"
    FAILED = "transformation_failed"


class MetricType(StrEnum):
    """What a router row measures (`router_performance_metrics.metric_type`)."""

    ROUTING_DECISION = "routing_decision"
    CACHE_HIT = "cache_hit"
    CACHE_MISS = "cache_miss"
    FUZZY_MATCH = "fuzzy_match"


class FeedbackType(StrEnum):
    """What a person said of a routing decision (`router_performance_metrics.feedback_type`)."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    CORRECTION = "correction"


# What each component weighs in the confidence of a routing decision, their sum being
# `router_performance_metrics.confidence_score`.
TRIGGER_WEIGHT, CONTEXT_WEIGHT, CAPABILITY_WEIGHT, HISTORICAL_WEIGHT = 0.4, 0.3, 0.2, 0.1
