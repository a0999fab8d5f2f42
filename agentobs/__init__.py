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
    from agentobs.sessions import create_engine, create_session_factory
    from agentobs.settings import DatabaseSettings

__all__ = [
    "AgentDefinition",
    "AgentStatus",
    "AgentTransformationEvent",
    "AgentobsError",
    "DatabaseSettings",
    "EventType",
    "FeedbackType",
    "MetricType",
    "RouterPerformanceMetric",
    "create_engine",
    "create_session_factory",
    "metadata",
]

_HOMES = {
    "AgentDefinition": "agentobs.models",
    "AgentStatus": "agentobs.models",
    "AgentTransformationEvent": "agentobs.models",
    "AgentobsError": "agentobs.errors",
    "DatabaseSettings": "agentobs.settings",
    "EventType": "agentobs.models",
    "FeedbackType": "agentobs.models",
    "MetricType": "agentobs.models",
    "RouterPerformanceMetric": "agentobs.models",
    "create_engine": "agentobs.sessions",
    "create_session_factory": "agentobs.sessions",
    "metadata": "agentobs.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentobs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
