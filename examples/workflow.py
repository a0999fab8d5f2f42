"""A workflow as a service would record it: routing decisions, and the runs that they led to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from agentobs import AgentTransformationEvent, EventType, MetricType, RouterPerformanceMetric
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Made from names: a second run finds the workflow of the first.
NAMESPACE = UUID("5d3c9f0e-6f1b-4f4e-9d52-0b8f2c6a7e10")
CORRELATION_ID = uuid5(NAMESPACE, "refund endpoint")
SESSION_ID = uuid5(NAMESPACE, "conversation")
REQUEST = "Add an endpoint that refunds an order, with tests, and have it reviewed"


@dataclass(frozen=True)
class Run:
    """One agent's part: when it began and how long it took, in milliseconds, and how it went."""

    agent: str
    reason: str
    begins_ms: int
    takes_ms: int
    components: tuple[float, float, float, float]
    quality: float | None = None
    error: tuple[str, str] | None = None
    alternatives: tuple[tuple[str, float], ...] = ()
    children: tuple[Run, ...] = field(default=())

    @property
    def confidence(self) -> float:
        """Weigh the four components as the router does: 40, 30, 20 and 10 %."""
        weights = (0.4, 0.3, 0.2, 0.1)
        return sum(w * c for w, c in zip(weights, self.components, strict=True))


WORKFLOW = Run(
    agent="agent-workflow-coordinator",
    reason="the request names several steps",
    begins_ms=0,
    takes_ms=48_300,
    components=(0.95, 0.90, 0.85, 0.90),
    quality=0.93,
    alternatives=(("agent-api-designer", 0.71),),
    children=(
        Run(
            agent="agent-api-designer",
            reason="design the refund endpoint",
            begins_ms=400,
            takes_ms=12_800,
            components=(0.92, 0.80, 0.90, 0.75),
            quality=0.95,
            alternatives=(("agent-database-tuner", 0.44),),
            children=(
                Run(
                    agent="agent-database-tuner",
                    reason="the look-up of refunds by order is slow",
                    begins_ms=6_100,
                    takes_ms=3_900,
                    components=(0.70, 0.75, 0.85, 0.60),
                    quality=0.88,
                ),
            ),
        ),
        Run(
            agent="agent-test-author",
            reason="write the tests of the endpoint",
            begins_ms=13_500,
            takes_ms=21_400,
            components=(0.88, 0.82, 0.90, 0.80),
            quality=0.91,
            children=(
                Run(
                    agent="agent-debug-intelligence",
                    reason="a test fails now and then",
                    begins_ms=19_000,
                    takes_ms=5_200,
                    components=(0.55, 0.60, 0.70, 0.50),
                    error=("TimeoutError", "no reproduction within five seconds"),
                    alternatives=(("agent-database-tuner", 0.51), ("agent-test-author", 0.33)),
                ),
                Run(
                    agent="agent-debug-intelligence",
                    reason="a test fails now and then, second try with the log",
                    begins_ms=24_600,
                    takes_ms=7_700,
                    components=(0.78, 0.85, 0.70, 0.50),
                    quality=0.86,
                ),
            ),
        ),
        Run(
            agent="agent-code-reviewer",
            reason="review the change",
            begins_ms=35_200,
            takes_ms=12_600,
            components=(0.90, 0.85, 0.95, 0.85),
            quality=0.97,
        ),
    ),
)


def make_rows(
    definitions: Mapping[str, UUID], begins: datetime
) -> Iterator[AgentTransformationEvent | RouterPerformanceMetric]:
    """Make the rows of the workflow, each run's decision first, parents before children.

    `definitions` maps the agents' names to the ids of their definitions. Where the demo `begins`,
    the workflow is over: it is of the minute before.
    """
    yield from _rows_of(WORKFLOW, None, definitions, begins - timedelta(minutes=1))


def _rows_of(
    run: Run,
    parent: AgentTransformationEvent | None,
    definitions: Mapping[str, UUID],
    begins: datetime,
) -> Iterator[AgentTransformationEvent | RouterPerformanceMetric]:
    event = _event(run, parent, definitions, begins)
    yield _decision(run, event)
    yield event
    for child in run.children:
        yield from _rows_of(child, event, definitions, begins)


def _event(
    run: Run,
    parent: AgentTransformationEvent | None,
    definitions: Mapping[str, UUID],
    begins: datetime,
) -> AgentTransformationEvent:
    started_at = begins + timedelta(milliseconds=run.begins_ms)
    context = {"request": REQUEST, "task": run.reason, "files": ["orders/refund.py"]}
    return AgentTransformationEvent(
        # Of its instant, which windows and the months of the tables go by.
        id=uuid7_at(started_at),
        event_type=EventType.FAILED if run.error else EventType.COMPLETE,
        correlation_id=CORRELATION_ID,
        session_id=SESSION_ID,
        source_agent=parent.target_agent if parent else None,
        target_agent=run.agent,
        transformation_reason=run.reason,
        context_snapshot=context,
        context_keys=sorted(context),
        user_request=REQUEST,
        routing_confidence=run.confidence,
        routing_strategy="fuzzy_match",
        transformation_duration_ms=12,
        initialization_duration_ms=85,
        total_execution_duration_ms=run.takes_ms,
        success=run.error is None,
        quality_score=run.quality,
        agent_definition_id=definitions[run.agent],
        parent_event_id=parent.id if parent else None,
        started_at=started_at,
        completed_at=started_at + timedelta(milliseconds=run.takes_ms),
        **_error(run),
    )


def _decision(run: Run, event: AgentTransformationEvent) -> RouterPerformanceMetric:
    trigger, context, capability, historical = run.components
    measured_at = event.started_at - timedelta(milliseconds=30)
    return RouterPerformanceMetric(
        id=uuid7_at(measured_at),
        metric_type=MetricType.ROUTING_DECISION,
        correlation_id=CORRELATION_ID,
        user_request_hash=hashlib.sha256(run.reason.encode()).hexdigest(),
        selected_agent=run.agent,
        selection_strategy="fuzzy",
        confidence_score=run.confidence,
        alternative_agents=[{"agent": a, "confidence": c} for a, c in run.alternatives],
        alternatives_count=len(run.alternatives),
        cache_lookup_us=140,
        trigger_matching_us=2_100 + 310 * len(run.reason),
        confidence_scoring_us=4_800,
        total_routing_time_us=9_000 + 310 * len(run.reason),
        trigger_confidence=trigger,
        context_confidence=context,
        capability_confidence=capability,
        historical_confidence=historical,
        cache_hit=False,
        measured_at=measured_at,
        **_outcome(run, event),
    )


def _error(run: Run) -> dict[str, Any]:
    if run.error is None:
        return {}
    return {"error_type": run.error[0], "error_message": run.error[1]}


def _outcome(run: Run, event: AgentTransformationEvent) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "selection_validated": True,
        "actual_success": run.error is None,
        "validated_at": event.completed_at,
    }
    if run.quality is not None:
        outcome["actual_quality_score"] = run.quality
        outcome["prediction_error"] = run.confidence - run.quality
    return outcome
