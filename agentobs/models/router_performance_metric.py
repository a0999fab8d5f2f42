"""The table router_performance_metrics: one row for each decision of the router."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from agentobs.models.base import (
    Base,
    Difference,
    Digest,
    Instant,
    Json,
    Key,
    Label,
    Name,
    Score,
    ShortLabel,
)

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
        Index("measured_at", text("measured_at DESC")),
        Index("type_time", "metric_type", text("measured_at DESC")),
        Index("agent_time", "selected_agent", text("measured_at DESC")),
        Index("correlation", "correlation_id", postgresql_where=text("correlation_id IS NOT NULL")),
        Index(
            "cache",
            "cache_hit",
            "cache_age_seconds",
            postgresql_where=text("cache_hit IS NOT NULL"),
        ),
        Index("timing", "total_routing_time_us", text("measured_at DESC")),
        Index(
            "prediction",
            "confidence_score",
            "actual_quality_score",
            "prediction_error",
            postgresql_where=text("selection_validated = TRUE"),
        ),
        Index("request_hash", "user_request_hash", "context_hash"),
        Index("alternatives", "alternative_agents", postgresql_using="gin"),
        Index(
            "feedback",
            "feedback_provided",
            "feedback_type",
            postgresql_where=text("feedback_provided = TRUE"),
        ),
        {"comment": "Each routing decision or cache look-up of the router"},
    )
    shown_columns: ClassVar[tuple[str, ...]] = (
        "id",
        "metric_type",
        "correlation_id",
        "selected_agent",
        "confidence_score",
    )

    id: Mapped[Key] = mapped_column(primary_key=True, insert_sentinel=True, comment="Primary key")
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
    measured_at: Mapped[Instant] = mapped_column(
        server_default=func.now(), comment="When the decision was made"
    )
    validated_at: Mapped[Instant | None] = mapped_column(comment="When the outcome became known")
