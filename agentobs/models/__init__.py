"""The three tables as SQLAlchemy models."""

from __future__ import annotations

from agentobs.models.agent_definition import AgentDefinition
from agentobs.models.agent_transformation_event import AgentTransformationEvent
from agentobs.models.base import Base, metadata
from agentobs.models.router_performance_metric import RouterPerformanceMetric
from agentobs.models.vocabulary import AgentStatus, EventType, FeedbackType, MetricType

__all__ = [
    "AgentDefinition",
    "AgentStatus",
    "AgentTransformationEvent",
    "Base",
    "EventType",
    "FeedbackType",
    "MetricType",
    "RouterPerformanceMetric",
    "metadata",
]
