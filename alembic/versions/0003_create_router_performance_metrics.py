"""Create router_performance_metrics.

Reason: each decision of the router, its timings and what came of it.
Cost on a big table: none, the table is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A lock that does not come soon is given up: whoever waits for it stalls all behind it.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "router_performance_metrics",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Primary key",
        ),
        sa.Column(
            "metric_type",
            sa.String(length=100),
            nullable=False,
            comment="routing_decision, cache_hit, cache_miss, fuzzy_match, …",
        ),
        sa.Column("correlation_id", sa.Uuid(), comment="The workflow of the transformation events"),
        sa.Column(
            "user_request_hash",
            sa.String(length=64),
            comment="SHA-256 (hex) of the request: de-duplication",
        ),
        sa.Column(
            "context_hash", sa.String(length=64), comment="SHA-256 (hex) of the context: cache key"
        ),
        sa.Column("selected_agent", sa.String(length=255), comment="The agent that was chosen"),
        sa.Column(
            "selection_strategy",
            sa.String(length=100),
            comment="How it was chosen: explicit, fuzzy, capability, historical",
        ),
        sa.Column(
            "confidence_score",
            sa.Numeric(precision=5, scale=4),
            comment="The router's confidence, 0 to 1",
        ),
        sa.Column(
            "alternative_agents",
            JSONB(),
            comment="The other candidates: an array of {agent, confidence, reason}",
        ),
        sa.Column(
            "alternatives_count",
            sa.Integer(),
            server_default=sa.text("0"),
            comment="How many other candidates there were",
        ),
        sa.Column(
            "cache_lookup_us", sa.Integer(), comment="Time of the cache look-up, in microseconds"
        ),
        sa.Column(
            "trigger_matching_us",
            sa.Integer(),
            comment="Time of the trigger matching, in microseconds",
        ),
        sa.Column(
            "confidence_scoring_us",
            sa.Integer(),
            comment="Time of the confidence scoring, in microseconds",
        ),
        sa.Column(
            "total_routing_time_us",
            sa.Integer(),
            comment="Time of the whole decision, in microseconds; the target is below 100,000",
        ),
        sa.Column(
            "trigger_confidence",
            sa.Numeric(precision=5, scale=4),
            comment="Confidence from triggers, 0 to 1; weighs 40 % in confidence_score",
        ),
        sa.Column(
            "context_confidence",
            sa.Numeric(precision=5, scale=4),
            comment="Confidence from the context, 0 to 1; weighs 30 % in confidence_score",
        ),
        sa.Column(
            "capability_confidence",
            sa.Numeric(precision=5, scale=4),
            comment="Confidence from capabilities, 0 to 1; weighs 20 % in confidence_score",
        ),
        sa.Column(
            "historical_confidence",
            sa.Numeric(precision=5, scale=4),
            comment="Confidence from history, 0 to 1; weighs 10 % in confidence_score",
        ),
        sa.Column("cache_hit", sa.Boolean(), comment="Whether the cache had the answer"),
        sa.Column("cache_key", sa.String(length=255), comment="The key that was looked up"),
        sa.Column(
            "cache_age_seconds", sa.Integer(), comment="Age of the cached answer, in seconds"
        ),
        sa.Column("selection_validated", sa.Boolean(), comment="Whether the outcome is known"),
        sa.Column("actual_success", sa.Boolean(), comment="Whether the chosen agent succeeded"),
        sa.Column(
            "actual_quality_score",
            sa.Numeric(precision=5, scale=4),
            comment="Quality of what the chosen agent did, 0 to 1",
        ),
        sa.Column(
            "prediction_error",
            sa.Numeric(precision=5, scale=4),
            comment="confidence_score minus actual_quality_score; may be negative",
        ),
        sa.Column(
            "feedback_provided",
            sa.Boolean(),
            server_default=sa.text("false"),
            comment="Whether a person gave feedback",
        ),
        sa.Column(
            "feedback_type", sa.String(length=50), comment="positive, negative or correction"
        ),
        sa.Column("feedback_details", JSONB(), comment="The feedback itself"),
        sa.Column(
            "measured_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the decision was made",
        ),
        sa.Column(
            "validated_at", sa.TIMESTAMP(timezone=True), comment="When the outcome became known"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("router_performance_metrics_pkey")),
        sa.CheckConstraint(
            "(trigger_confidence IS NULL OR (trigger_confidence >= 0 AND trigger_confidence <= 1)) AND "
            "(context_confidence IS NULL OR (context_confidence >= 0 AND context_confidence <= 1)) AND "
            "(capability_confidence IS NULL OR (capability_confidence >= 0 AND capability_confidence <= 1)) AND "
            "(historical_confidence IS NULL OR (historical_confidence >= 0 AND historical_confidence <= 1))",
            name=op.f("router_performance_metrics_component_checks"),
        ),
        sa.CheckConstraint(
            "confidence_score >= 0 AND confidence_score <= 1",
            name=op.f("router_performance_metrics_confidence_check"),
        ),
        comment="Each routing decision or cache look-up of the router",
    )
    op.create_index(
        op.f("idx_router_performance_metrics_measured_at"),
        "router_performance_metrics",
        [sa.text("measured_at DESC")],
    )
    op.create_index(
        op.f("idx_router_performance_metrics_type_time"),
        "router_performance_metrics",
        ["metric_type", sa.text("measured_at DESC")],
    )
    op.create_index(
        op.f("idx_router_performance_metrics_agent_time"),
        "router_performance_metrics",
        ["selected_agent", sa.text("measured_at DESC")],
    )
    op.create_index(
        op.f("idx_router_performance_metrics_correlation"),
        "router_performance_metrics",
        ["correlation_id"],
        postgresql_where=sa.text("correlation_id IS NOT NULL"),
    )
    op.create_index(
        op.f("idx_router_performance_metrics_cache"),
        "router_performance_metrics",
        ["cache_hit", "cache_age_seconds"],
        postgresql_where=sa.text("cache_hit IS NOT NULL"),
    )
    op.create_index(
        op.f("idx_router_performance_metrics_timing"),
        "router_performance_metrics",
        ["total_routing_time_us", sa.text("measured_at DESC")],
    )
    op.create_index(
        op.f("idx_router_performance_metrics_prediction"),
        "router_performance_metrics",
        ["confidence_score", "actual_quality_score", "prediction_error"],
        postgresql_where=sa.text("selection_validated = TRUE"),
    )
    op.create_index(
        op.f("idx_router_performance_metrics_request_hash"),
        "router_performance_metrics",
        ["user_request_hash", "context_hash"],
    )
    op.create_index(
        op.f("idx_router_performance_metrics_alternatives"),
        "router_performance_metrics",
        ["alternative_agents"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_router_performance_metrics_feedback"),
        "router_performance_metrics",
        ["feedback_provided", "feedback_type"],
        postgresql_where=sa.text("feedback_provided = TRUE"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("router_performance_metrics")
