"""The table agent_transformation_events: one row for each identity that an agent assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship, remote

from agentobs.models.base import (
    BRIN,
    Base,
    Instant,
    Json,
    KeyedInstant,
    Label,
    LongText,
    Name,
    Score,
    TextArray,
    TimeOrderedKey,
)
from agentobs.models.time_ordered import key_from

if TYPE_CHECKING:
    from agentobs.models.agent_definition import AgentDefinition


class AgentTransformationEvent(Base):
    """One agent takes on another's identity and runs as it, within a workflow."""

    __tablename__ = "agent_transformation_events"
    __table_args__ = (
        CheckConstraint(
            "routing_confidence >= 0 AND routing_confidence <= 1", name="confidence_check"
        ),
        CheckConstraint(
            "quality_score IS NULL OR (quality_score >= 0 AND quality_score <= 1)",
            name="quality_check",
        ),
        Index("correlation", "correlation_id"),
        Index("session", "session_id"),
        Index("target_newest", "target_agent", "id"),
        Index("started_at_brin", "started_at", **BRIN),
        Index(
            "context_paths",
            "context_snapshot",
            postgresql_using="gin",
            postgresql_ops={"context_snapshot": "jsonb_path_ops"},
        ),
        Index("parent", "parent_event_id", postgresql_where=text("parent_event_id IS NOT NULL")),
        Index(
            "definition",
            "agent_definition_id",
            postgresql_where=text("agent_definition_id IS NOT NULL"),
        ),
        {
            "comment": "Each time that one agent takes on another's identity and runs as it",
            "postgresql_partition_by": "RANGE (id)",
        },
    )
    shown_columns: ClassVar[tuple[str, ...]] = (
        "id",
        "event_type",
        "correlation_id",
        "source_agent",
        "target_agent",
        "success",
    )

    id: Mapped[TimeOrderedKey] = mapped_column(
        primary_key=True,
        insert_sentinel=True,
        default=key_from("agent_transformation_events", "started_at"),
        comment="Primary key: a UUIDv7, made of started_at",
    )
    event_type: Mapped[Label] = mapped_column(
        comment="transformation_start, transformation_complete or transformation_failed"
    )
    correlation_id: Mapped[UUID] = mapped_column(
        comment="All events of one workflow share it (distributed tracing)"
    )
    session_id: Mapped[UUID | None] = mapped_column(
        comment="All events of one conversation share it"
    )
    source_agent: Mapped[Name | None] = mapped_column(comment="The agent before")
    target_agent: Mapped[Name] = mapped_column(comment="The identity assumed")
    transformation_reason: Mapped[LongText | None] = mapped_column(
        comment="Why the identity was assumed"
    )
    context_snapshot: Mapped[Json | None] = mapped_column(
        comment="The full context at that moment, for debugging and replay"
    )
    context_keys: Mapped[TextArray | None] = mapped_column(
        comment="Which context items were handed over"
    )
    context_size_bytes: Mapped[int | None] = mapped_column(comment="Size of the context in bytes")
    user_request: Mapped[LongText | None] = mapped_column(comment="The request that led to it")
    routing_confidence: Mapped[Score | None] = mapped_column(
        comment="The router's confidence, 0 to 1"
    )
    routing_strategy: Mapped[Label | None] = mapped_column(
        comment="How the router chose: explicit, fuzzy_match, capability_match, …"
    )
    transformation_duration_ms: Mapped[int | None] = mapped_column(
        comment="Time to take on the identity, in milliseconds"
    )
    initialization_duration_ms: Mapped[int | None] = mapped_column(
        comment="Time to initialize the agent, in milliseconds"
    )
    total_execution_duration_ms: Mapped[int | None] = mapped_column(
        comment="Time from start to end of the run, in milliseconds"
    )
    success: Mapped[bool | None] = mapped_column(
        comment="Whether the run succeeded; NULL while it runs"
    )
    error_message: Mapped[LongText | None] = mapped_column(comment="What went wrong")
    error_type: Mapped[Label | None] = mapped_column(comment="The kind of error")
    quality_score: Mapped[Score | None] = mapped_column(comment="Quality of the output, 0 to 1")
    agent_definition_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("agent_definitions.id"), comment="The version of the agent that ran"
    )
    # No foreign key of the server's, which would have to check all partitions when one is detached:
    # triggers keep the link, by the rules and the name that the key had.
    parent_event_id: Mapped[UUID | None] = mapped_column(
        comment="The transformation that this one is nested in"
    )
    started_at: Mapped[KeyedInstant] = mapped_column(comment="When the transformation began")
    completed_at: Mapped[Instant | None] = mapped_column(comment="When the run ended")

    # Without passive_deletes the flush of a delete would load both, and lazy="raise" refuses that.
    definition: Mapped[AgentDefinition | None] = relationship(
        back_populates="events", lazy="raise", passive_deletes=True
    )
    parent: Mapped[AgentTransformationEvent | None] = relationship(
        back_populates="children",
        lazy="raise",
        passive_deletes=True,
        primaryjoin=lambda: (
            foreign(AgentTransformationEvent.parent_event_id) == remote(AgentTransformationEvent.id)
        ),
    )
    # The database takes a deleted parent out of its children: the ORM loads none of them for it.
    children: Mapped[list[AgentTransformationEvent]] = relationship(
        back_populates="parent",
        lazy="raise",
        passive_deletes="all",
        primaryjoin=lambda: (
            AgentTransformationEvent.id == remote(foreign(AgentTransformationEvent.parent_event_id))
        ),
    )
