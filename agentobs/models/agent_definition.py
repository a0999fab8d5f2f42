"""The table agent_definitions: one row for each version of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sqlalchemy import CheckConstraint, FetchedValue, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from agentobs.models.base import (
    Base,
    Digest,
    Instant,
    Json,
    Key,
    Label,
    LongText,
    Name,
    Score,
    ShortLabel,
    TextArray,
)

if TYPE_CHECKING:
    from agentobs.models.agent_transformation_event import AgentTransformationEvent


class AgentDefinition(Base):
    """A version of an agent: its whole YAML configuration and what the router reads of it."""

    __tablename__ = "agent_definitions"
    __table_args__ = (
        UniqueConstraint("agent_name", "agent_version", name="name_version_unique"),
        CheckConstraint("success_rate >= 0 AND success_rate <= 1", name="success_rate_check"),
        CheckConstraint("quality_score >= 0 AND quality_score <= 1", name="quality_score_check"),
        Index("capabilities", "capabilities", postgresql_using="gin"),
        Index("triggers", "triggers", postgresql_using="gin"),
        Index(
            "yaml_paths",
            "yaml_config",
            postgresql_using="gin",
            postgresql_ops={"yaml_config": "jsonb_path_ops"},
        ),
        Index(
            "performance",
            text("success_rate DESC"),
            text("quality_score DESC"),
            "avg_execution_time_ms",
        ),
        {
            "comment": "Each version of each agent: its whole YAML configuration, and what the "
            "router reads of it"
        },
    )
    shown_columns: ClassVar[tuple[str, ...]] = ("id", "agent_name", "agent_version", "status")

    id: Mapped[Key] = mapped_column(primary_key=True, insert_sentinel=True, comment="Primary key")
    agent_name: Mapped[Name] = mapped_column(
        comment="The agent's identifier, such as agent-debug-intelligence"
    )
    agent_version: Mapped[ShortLabel] = mapped_column(
        server_default="1.0.0", comment="Semantic version of the definition"
    )
    agent_type: Mapped[Label] = mapped_column(
        comment="The kind of agent: coordinator, specialist, transformer, …"
    )
    yaml_config: Mapped[Json] = mapped_column(
        nullable=False, comment="The complete parsed YAML document"
    )
    parsed_metadata: Mapped[Json | None] = mapped_column(
        comment="What was extracted from the document, for queries that need not dig in it"
    )
    capabilities: Mapped[TextArray | None] = mapped_column(
        server_default=text("'{}'"),
        comment="Capability tags; capability-based routing matches on them",
    )
    domain: Mapped[Label | None] = mapped_column(
        comment="The field of work: general, api_development, debugging, …"
    )
    triggers: Mapped[TextArray | None] = mapped_column(
        server_default=text("'{}'"),
        comment="Trigger phrases; the router's fuzzy matching reads them",
    )
    trigger_patterns: Mapped[TextArray | None] = mapped_column(
        server_default=text("'{}'"), comment="Regular expressions that trigger the agent"
    )
    avg_execution_time_ms: Mapped[int | None] = mapped_column(
        comment="Mean execution time in milliseconds"
    )
    success_rate: Mapped[Score | None] = mapped_column(
        comment="Share of executions that succeeded, 0 to 1"
    )
    quality_score: Mapped[Score | None] = mapped_column(
        comment="Mean quality of the agent's output, 0 to 1"
    )
    is_active: Mapped[bool] = mapped_column(
        server_default=text("true"), comment="Whether the router may choose this version"
    )
    status: Mapped[ShortLabel] = mapped_column(
        server_default="active", comment="active, deprecated or testing"
    )
    registry_path: Mapped[LongText | None] = mapped_column(comment="Where the YAML file lives")
    definition_hash: Mapped[Digest | None] = mapped_column(
        comment="SHA-256 (hex) of the YAML content; tells a changed file"
    )
    created_at: Mapped[Instant] = mapped_column(
        server_default=func.now(), comment="When the row was made"
    )
    updated_at: Mapped[Instant] = mapped_column(
        server_default=func.now(),
        server_onupdate=FetchedValue(),
        comment="When the row was last updated; kept by a trigger",
    )
    last_loaded_at: Mapped[Instant | None] = mapped_column(
        comment="When the registry last read the definition"
    )

    # An event names the version that ran, so a version with events can't be deleted: the
    # database refuses it, and the ORM loads nothing to find that out.
    events: Mapped[list[AgentTransformationEvent]] = relationship(
        back_populates="definition", lazy="raise", passive_deletes="all"
    )
