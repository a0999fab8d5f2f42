"""Create agent_transformation_events.

Reason: who became whom, in which workflow, and how it went.
Cost on a big table: none, the table is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A lock that does not come soon is given up: whoever waits for it stalls all behind it.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "agent_transformation_events",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Primary key",
        ),
        sa.Column(
            "event_type",
            sa.String(length=100),
            nullable=False,
            comment="transformation_start, transformation_complete or transformation_failed",
        ),
        sa.Column(
            "correlation_id",
            sa.Uuid(),
            nullable=False,
            comment="All events of one workflow share it (distributed tracing)",
        ),
        sa.Column("session_id", sa.Uuid(), comment="All events of one conversation share it"),
        sa.Column("source_agent", sa.String(length=255), comment="The agent before"),
        sa.Column(
            "target_agent", sa.String(length=255), nullable=False, comment="The identity assumed"
        ),
        sa.Column("transformation_reason", sa.Text(), comment="Why the identity was assumed"),
        sa.Column(
            "context_snapshot",
            JSONB(),
            comment="The full context at that moment, for debugging and replay",
        ),
        sa.Column("context_keys", ARRAY(sa.Text()), comment="Which context items were handed over"),
        sa.Column("context_size_bytes", sa.Integer(), comment="Size of the context in bytes"),
        sa.Column("user_request", sa.Text(), comment="The request that led to it"),
        sa.Column(
            "routing_confidence",
            sa.Numeric(precision=5, scale=4),
            comment="The router's confidence, 0 to 1",
        ),
        sa.Column(
            "routing_strategy",
            sa.String(length=100),
            comment="How the router chose: explicit, fuzzy_match, capability_match, …",
        ),
        sa.Column(
            "transformation_duration_ms",
            sa.Integer(),
            comment="Time to take on the identity, in milliseconds",
        ),
        sa.Column(
            "initialization_duration_ms",
            sa.Integer(),
            comment="Time to initialize the agent, in milliseconds",
        ),
        sa.Column(
            "total_execution_duration_ms",
            sa.Integer(),
            comment="Time from start to end of the run, in milliseconds",
        ),
        sa.Column("success", sa.Boolean(), comment="Whether the run succeeded; NULL while it runs"),
        sa.Column("error_message", sa.Text(), comment="What went wrong"),
        sa.Column("error_type", sa.String(length=100), comment="The kind of error"),
        sa.Column(
            "quality_score",
            sa.Numeric(precision=5, scale=4),
            comment="Quality of the output, 0 to 1",
        ),
        sa.Column("agent_definition_id", sa.Uuid(), comment="The version of the agent that ran"),
        sa.Column(
            "parent_event_id", sa.Uuid(), comment="The transformation that this one is nested in"
        ),
        sa.Column(
            "started_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the transformation began",
        ),
        sa.Column("completed_at", sa.TIMESTAMP(timezone=True), comment="When the run ended"),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_transformation_events_pkey")),
        sa.CheckConstraint(
            "quality_score IS NULL OR (quality_score >= 0 AND quality_score <= 1)",
            name=op.f("agent_transformation_events_quality_check"),
        ),
        sa.CheckConstraint(
            "routing_confidence >= 0 AND routing_confidence <= 1",
            name=op.f("agent_transformation_events_confidence_check"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_definition_id"],
            ["agent_definitions.id"],
            name=op.f("agent_transformation_events_agent_definition_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_event_id"],
            ["agent_transformation_events.id"],
            name=op.f("agent_transformation_events_parent_event_id_fkey"),
        ),
        comment="Each time that one agent takes on another's identity and runs as it",
    )
    op.create_index(
        op.f("idx_agent_transformation_events_correlation"),
        "agent_transformation_events",
        ["correlation_id"],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_session"),
        "agent_transformation_events",
        ["session_id"],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_target"),
        "agent_transformation_events",
        ["target_agent"],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_source"),
        "agent_transformation_events",
        ["source_agent"],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_type"), "agent_transformation_events", ["event_type"]
    )
    op.create_index(
        op.f("idx_agent_transformation_events_started_at"),
        "agent_transformation_events",
        [sa.text("started_at DESC")],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_success_time"),
        "agent_transformation_events",
        ["success", sa.text("started_at DESC")],
        postgresql_where=sa.text("success IS NOT NULL"),
    )
    op.create_index(
        op.f("idx_agent_transformation_events_performance"),
        "agent_transformation_events",
        ["target_agent", "total_execution_duration_ms", "quality_score"],
    )
    op.create_index(
        op.f("idx_agent_transformation_events_context"),
        "agent_transformation_events",
        ["context_snapshot"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_agent_transformation_events_parent"),
        "agent_transformation_events",
        ["parent_event_id"],
        postgresql_where=sa.text("parent_event_id IS NOT NULL"),
    )
    op.create_index(
        op.f("idx_agent_transformation_events_definition"),
        "agent_transformation_events",
        ["agent_definition_id"],
        postgresql_where=sa.text("agent_definition_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("agent_transformation_events")
    # A later revision leaves its notes of months to the next upgrade; without the table they end.
    op.execute("""
        DO $$
        BEGIN
            IF to_regclass('agentobs_partitions') IS NOT NULL THEN
                DROP TABLE agentobs_partitions;
            END IF;
        END
        $$
    """)
