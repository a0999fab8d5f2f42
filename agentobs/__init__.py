"""The observability database layer of multi-agent systems.

The names below are the public ones; each is imported when it is first asked for, so that
`import agentobs.errors` does not pay for SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentobs.errors import AgentobsError
    from agentobs.models import (
        AgentDefinition,
        AgentStatus,
        AgentTransformationEvent,
        EventType,
        FeedbackType,
        MetricType,
        RouterPerformanceMetric,
        metadata,
    )
    from agentobs.recorder import (
        Alternative,
        Confidence,
        Decision,
        Recorder,
        RoutingDecision,
        Timings,
        Transformation,
        record_in,
    )
    from agentobs.sessions import (
        Database,
        Health,
        PoolStats,
        close_database,
        create_engine,
        create_read_engine,
        create_session_factory,
        get_database,
    )
    from agentobs.settings import DatabaseSettings, RecorderSettings

__all__ = [
    "AgentDefinition",
    "AgentStatus",
    "AgentTransformationEvent",
    "AgentobsError",
    "Alternative",
    "Confidence",
    "Database",
    "DatabaseSettings",
    "Decision",
    "EventType",
    "FeedbackType",
    "Health",
    "MetricType",
    "PoolStats",
    "Recorder",
    "RecorderSettings",
    "RouterPerformanceMetric",
    "RoutingDecision",
    "Timings",
    "Transformation",
    "close_database",
    "create_engine",
    "create_read_engine",
    "create_session_factory",
    "get_database",
    "metadata",
    "record_in",
]

_HOMES = {
    "AgentDefinition": "agentobs.models",
    "AgentStatus": "agentobs.models",
    "AgentTransformationEvent": "agentobs.models",
    "AgentobsError": "agentobs.errors",
    "Alternative": "agentobs.recorder",
    "Confidence": "agentobs.recorder",
    "Database": "agentobs.sessions",
    "DatabaseSettings": "agentobs.settings",
    "Decision": "agentobs.recorder",
    "EventType": "agentobs.models",
    "FeedbackType": "agentobs.models",
    "Health": "agentobs.sessions",
    "MetricType": "agentobs.models",
    "PoolStats": "agentobs.sessions",
    "Recorder": "agentobs.recorder",
    "RecorderSettings": "agentobs.settings",
    "RouterPerformanceMetric": "agentobs.models",
    "RoutingDecision": "agentobs.recorder",
    "Timings": "agentobs.recorder",
    "Transformation": "agentobs.recorder",
    "close_database": "agentobs.sessions",
    "create_engine": "agentobs.sessions",
    "create_read_engine": "agentobs.sessions",
    "create_session_factory": "agentobs.sessions",
    "get_database": "agentobs.sessions",
    "metadata": "agentobs.models",
    "record_in": "agentobs.recorder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentobs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
