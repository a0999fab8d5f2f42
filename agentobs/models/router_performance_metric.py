"""The table router_performance_metrics: one row for each decision of the router."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentobs.models.base import (
    BRIN,
    Base,
    Difference,
    Digest,
    Instant,
    Json,
    KeyedInstant,
    Label,
    Name,
    Score,
    ShortLabel,
    TimeOrderedKey,
)
from agentobs.models.time_ordered import key_from

_COMPONENTS = (
    "trigger_confidence",
    "context_confidence",
    "capability_confidence",
    "historical_confidence",
)


class RouterPerformanceMetric(Base):
    """A routing decision (or cache look-up), its timings, and later what came of it."""

    __tablename__ = "router_performance_metrics"
    __table_args__ = (
        CheckConstraint("confidence_score >= 0 AND confidence_score <= 1", name="confidence_check"),
        CheckConstraint(
            " AND ".join(
                f"({name} IS NULL OR ({name} >= 0 AND {name} <= 1))" for name in _COMPONENTS
            ),
            name="component_checks",
        ),
        Index("agent_newest", "selected_agent", "id"),
        Index("measured_at_brin", "measured_at", **BRIN),
        Index("correlation", "correlation_id", postgresql_where=text("correlation_id IS NOT NULL")),
        Index("feedback_newest", "feedback_type", "id", postgresql_where=text("feedback_provided")),
        {
            "comment": "Each routing decision or cache look-up of the router",
            "postgresql_partition_by": "RANGE (id)",
        },
    )
    shown_columns: ClassVar[tuple[str, ...]] = (
        "id",
        "metric_type",
        "correlation_id",
        "selected_agent",
        "confidence_score",
    )

    id: Mapped[TimeOrderedKey] = mapped_column(
        primary_key=True,
        insert_sentinel=True,
        default=key_from("router_performance_metrics", "measured_at"),
        comment="Primary key: a UUIDv7, made of measured_at",
    )
    metric_type: Mapped[Label] = mapped_column(
        comment="routing_decision, cache_hit, cache_miss, fuzzy_match, …"
    )
    correlation_id: Mapped[UUID | None] = mapped_column(
        comment="The workflow of the transformation events"
    )
    user_request_hash: Mapped[Digest | None] = mapped_column(
        comment="SHA-256 (hex) of the request: de-duplication"
    )
    context_hash: Mapped[Digest | None] = mapped_column(
        comment="SHA-256 (hex) of the context: cache key"
    )
    selected_agent: Mapped[Name | None] = mapped_column(comment="The agent that was chosen")
    selection_strategy: Mapped[Label | None] = mapped_column(
        comment="How it was chosen: explicit, fuzzy, capability, historical"
    )
    confidence_score: Mapped[Score | None] = mapped_column(
        comment="The router's confidence, 0 to 1"
    )
    alternative_agents: Mapped[Json | None] = mapped_column(
        comment="The other candidates: an array of {agent, confidence, reason}"
    )
    alternatives_count: Mapped[int | None] = mapped_column(
        server_default=text("0"), comment="How many other candidates there were"
    )
    cache_lookup_us: Mapped[int | None] = mapped_column(
        comment="Time of the cache look-up, in microseconds"
    )
    trigger_matching_us: Mapped[int | None] = mapped_column(
        comment="Time of the trigger matching, in microseconds"
    )
    confidence_scoring_us: Mapped[int | None] = mapped_column(
        comment="Time of the confidence scoring, in microseconds"
    )
    total_routing_time_us: Mapped[int | None] = mapped_column(
        comment="Time of the whole decision, in microseconds; the target is below 100,000"
    )
    trigger_confidence: Mapped[Score | None] = mapped_column(
        comment="Confidence from triggers, 0 to 1; weighs 40 % in confidence_score"
    )
    context_confidence: Mapped[Score | None] = mapped_column(
        comment="Confidence from the context, 0 to 1; weighs 30 % in confidence_score"
    )
    capability_confidence: Mapped[Score | None] = mapped_column(
        comment="Confidence from capabilities, 0 to 1; weighs 20 % in confidence_score"
    )
    historical_confidence: Mapped[Score | None] = mapped_column(
        comment="Confidence from history, 0 to 1; weighs 10 % in confidence_score"
    )
    cache_hit: Mapped[bool | None] = mapped_column(comment="Whether the cache had the answer")
    cache_key: Mapped[Name | None] = mapped_column(comment="The key that was looked up")
    cache_age_seconds: Mapped[int | None] = mapped_column(
        comment="Age of the cached answer, in seconds"
    )
    selection_validated: Mapped[bool | None] = mapped_column(comment="Whether the outcome is known")
    actual_success: Mapped[bool | None] = mapped_column(
        comment="Whether the chosen agent succeeded"
    )
    actual_quality_score: Mapped[Score | None] = mapped_column(
        comment="Quality of what the chosen agent did, 0 to 1"
    )
    prediction_error: Mapped[Difference | None] = mapped_column(
        comment="confidence_score minus actual_quality_score; may be negative"
    )
    feedback_provided: Mapped[bool | None] = mapped_column(
        server_default=text("false"), comment="Whether a person gave feedback"
    )
    feedback_type: Mapped[ShortLabel | None] = mapped_column(
        comment="positive, negative or correction"
    )
    feedback_details: Mapped[Json | None] = mapped_column(comment="The feedback itself")
    measured_at: Mapped[KeyedInstant] = mapped_column(comment="When the decision was made")
    validated_at: Mapped[Instant | None] = mapped_column(comment="When the outcome became known")
