"""The names of an online upgrade."""

from __future__ import annotations

from dataclasses import dataclass

STATE = "agentobs_online_state"
CHANGES = "agentobs_online_changes"
KEY = "agentobs_online_key"
NOTE = "agentobs_online_note"
TRIGGER = "agentobs_online"
EVENTS = "agent_transformation_events"


@dataclass(frozen=True)
class EventTable:
    """A table that is partitioned, and the column of its rows' instants."""

    name: str
    instant: str

    @property
    def beside(self) -> str:
        """The partitioned table that takes its place."""
        return f"agentobs_online_{self.name}"

    @property
    def original_ids(self) -> str:
        """The table of the ids that its rows had."""
        return f"{self.name}_original_ids"

    @property
    def has_parents(self) -> bool:
        """Whether its rows link to each other."""
        return self.name == EVENTS


EVENT_TABLES = (
    EventTable(EVENTS, "started_at"),
    EventTable("router_performance_metrics", "measured_at"),
)
