"""Create agent_definitions.

Reason: the registry of agents, one row for each version of each agent.
Cost on a big table: none, the table is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A lock that does not come soon is given up: whoever waits for it stalls all behind it.
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Tables that were made by hand have rows that no revision knows of: refuse all of them before
    # the first one is made, so that nothing is left half done.
    op.execute("""
        DO $$
        DECLARE
            found text;
        BEGIN
            SELECT string_agg(relname, ', ' ORDER BY relname) INTO found
            FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
              AND relname IN ('agent_definitions', 'agent_transformation_events',
                              'router_performance_metrics');
            IF found IS NOT NULL THEN
                RAISE EXCEPTION 'schema % holds %, but no revision is recorded',
                    current_schema(), found USING ERRCODE = 'AO001';
            END IF;
        END
        $$
    """)
    op.create_table(
        "agent_definitions",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Primary key",
        ),
        sa.Column(
            "agent_name",
            sa.String(length=255),
            nullable=False,
            comment="The agent's identifier, such as agent-debug-intelligence",
        ),
        sa.Column(
            "agent_version",
            sa.String(length=50),
            server_default="1.0.0",
            nullable=False,
            comment="Semantic version of the definition",
        ),
        sa.Column(
            "agent_type",
            sa.String(length=100),
            nullable=False,
            comment="The kind of agent: coordinator, specialist, transformer, …",
        ),
        sa.Column(
            "yaml_config", JSONB(), nullable=False, comment="The complete parsed YAML document"
        ),
        sa.Column(
            "parsed_metadata",
            JSONB(),
            comment="What was extracted from the document, for queries that need not dig in it",
        ),
        sa.Column(
            "capabilities",
            ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            comment="Capability tags; capability-based routing matches on them",
        ),
        sa.Column(
            "domain",
            sa.String(length=100),
            comment="The field of work: general, api_development, debugging, …",
        ),
        sa.Column(
            "triggers",
            ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            comment="Trigger phrases; the router's fuzzy matching reads them",
        ),
        sa.Column(
            "trigger_patterns",
            ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            comment="Regular expressions that trigger the agent",
        ),
        sa.Column(
            "avg_execution_time_ms", sa.Integer(), comment="Mean execution time in milliseconds"
        ),
        sa.Column(
            "success_rate",
            sa.Numeric(precision=5, scale=4),
            comment="Share of executions that succeeded, 0 to 1",
        ),
        sa.Column(
            "quality_score",
            sa.Numeric(precision=5, scale=4),
            comment="Mean quality of the agent's output, 0 to 1",
        ),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="Whether the router may choose this version",
        ),
        sa.Column(
            "status",
            sa.String(length=50),
            server_default="active",
            nullable=False,
            comment="active, deprecated or testing",
        ),
        sa.Column("registry_path", sa.Text(), comment="Where the YAML file lives"),
        sa.Column(
            "definition_hash",
            sa.String(length=64),
            comment="SHA-256 (hex) of the YAML content; tells a changed file",
        ),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row was made",
        ),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row was last updated; kept by a trigger",
        ),
        sa.Column(
            "last_loaded_at",
            sa.TIMESTAMP(timezone=True),
            comment="When the registry last read the definition",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_definitions_pkey")),
        sa.UniqueConstraint(
            "agent_name", "agent_version", name=op.f("agent_definitions_name_version_unique")
        ),
        sa.CheckConstraint(
            "quality_score >= 0 AND quality_score <= 1",
            name=op.f("agent_definitions_quality_score_check"),
        ),
        sa.CheckConstraint(
            "success_rate >= 0 AND success_rate <= 1",
            name=op.f("agent_definitions_success_rate_check"),
        ),
        comment="Each version of each agent: its whole YAML configuration, and what the router reads of it",
    )
    op.create_index(op.f("idx_agent_definitions_name"), "agent_definitions", ["agent_name"])
    op.create_index(op.f("idx_agent_definitions_type"), "agent_definitions", ["agent_type"])
    op.create_index(op.f("idx_agent_definitions_domain"), "agent_definitions", ["domain"])
    op.create_index(
        op.f("idx_agent_definitions_active"),
        "agent_definitions",
        ["is_active"],
        postgresql_where=sa.text("is_active = TRUE"),
    )
    op.create_index(
        op.f("idx_agent_definitions_capabilities"),
        "agent_definitions",
        ["capabilities"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_agent_definitions_triggers"),
        "agent_definitions",
        ["triggers"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_agent_definitions_yaml_config"),
        "agent_definitions",
        ["yaml_config"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_agent_definitions_metadata"),
        "agent_definitions",
        ["parsed_metadata"],
        postgresql_using="gin",
    )
    op.create_index(
        op.f("idx_agent_definitions_performance"),
        "agent_definitions",
        [sa.text("success_rate DESC"), sa.text("quality_score DESC"), "avg_execution_time_ms"],
    )
    op.execute("""
        CREATE FUNCTION update_agent_definitions_timestamp() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at = NOW();
            RETURN NEW;
        END;
        $$
    """)
    op.execute("""
        CREATE TRIGGER trigger_agent_definitions_updated_at
        BEFORE UPDATE ON agent_definitions
        FOR EACH ROW EXECUTE FUNCTION update_agent_definitions_timestamp()
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("agent_definitions")
    op.execute("DROP FUNCTION update_agent_definitions_timestamp()")
