from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import event

from agentobs import (
    AgentDefinition,
    AgentTransformationEvent,
    EventType,
    MetricType,
    RouterPerformanceMetric,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

# A text that occurs nowhere else: where it appears, a value has leaked.
CANARY = "canary-5f2d0c8e"


def new_definition(**values: Any) -> AgentDefinition:
    name = f"agent-{uuid4().hex}"
    required = {"agent_name": name, "agent_type": "specialist", "yaml_config": {"name": name}}
    return AgentDefinition(**(required | values))


def new_event(**values: Any) -> AgentTransformationEvent:
    return AgentTransformationEvent(**(required_of_an_event() | values))


def new_metric(**values: Any) -> RouterPerformanceMetric:
    return RouterPerformanceMetric(**({"metric_type": MetricType.ROUTING_DECISION} | values))


def required_of_an_event() -> dict[str, Any]:
    return {
        "event_type": EventType.START,
        "correlation_id": uuid4(),
        "target_agent": "agent-debug-intelligence",
    }


@contextmanager
def statements_of(session: AsyncSession) -> Iterator[list[str]]:
    """Collect the first word of every statement on rows that the session sends in the block."""
    sent: list[str] = []

    def collect(*arguments: Any) -> None:
        word = arguments[2].split()[0]
        if word not in {"SAVEPOINT", "RELEASE", "ROLLBACK"}:
            sent.append(word)

    bind = session.get_bind()
    event.listen(bind, "before_cursor_execute", collect)
    try:
        yield sent
    finally:
        event.remove(bind, "before_cursor_execute", collect)
