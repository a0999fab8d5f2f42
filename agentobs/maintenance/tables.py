"""The tables that grow: what maintenance has to know of each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentobs.maintenance.months import SLACK
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from agentobs.maintenance.months import Month


@dataclass(frozen=True)
class EventTable:
    """A table that is partitioned by month; its payload may expire before its rows."""

    name: str
    instant: str
    payload: tuple[str, ...]
    references: tuple[str, ...] = ()
    """The tables that its foreign keys name."""
    has_parents: bool = False

    @property
    def default(self) -> str:
        """The name of the partition for rows that no month takes."""
        return f"{self.name}_default"

    @property
    def original_ids(self) -> str:
        """The table of the ids that rows had before they were ordered by time."""
        return f"{self.name}_original_ids"

    @property
    def original_ids_default(self) -> str:
        """The partition of those that are of no month, or came when their month had gone."""
        return f"{self.original_ids}_default"

    def partition(self, month: Month) -> str:
        """Return the name that the month's partition gets; what a table is, its bounds say."""
        return f"{self.name}_{month.suffix}"


REWRITE, RESTORATION = "_rewrite", "_restoration"
"""What the names of the tables end with that stand beside a month for a while."""

EVENTS = EventTable(
    "agent_transformation_events",
    instant="started_at",
    payload=("context_snapshot", "user_request"),
    references=("agent_definitions",),
    has_parents=True,
)
METRICS = EventTable(
    "router_performance_metrics", instant="measured_at", payload=("feedback_details",)
)
EVENT_TABLES = (EVENTS, METRICS)


@dataclass(frozen=True)
class MonthPartition:
    """A month of a table: what its partition is called, attached or not.

    `made_as` is what the catalog calls it, where that is no name of ours.
    """

    table: EventTable
    month: Month
    made_as: str | None = None

    @property
    def name(self) -> str:
        """The name of the partition."""
        return self.made_as or self.usual_name

    @property
    def usual_name(self) -> str:
        """The name that we give to the month's partition."""
        return self.table.partition(self.month)

    @property
    def rewrite(self) -> str:
        """The name of the table in which the month is written anew."""
        return f"{self.usual_name}{REWRITE}"

    @property
    def restoration(self) -> str:
        """The name of the table into which an archive of the month is loaded."""
        return f"{self.usual_name}{RESTORATION}"

    @property
    def instants(self) -> tuple[datetime, datetime]:
        """The bounds of what the partition's CHECK takes: the month, and the slack around it."""
        return self.month.first - SLACK, self.month.end + SLACK

    @property
    def keys(self) -> dict[str, UUID]:
        """The bounds of the keys, as parameters `lower` and `upper`."""
        return {"lower": self.month.lower_id, "upper": self.month.upper_id}

    def __str__(self) -> str:
        return self.name


DETACHED = "Detached by `agentobs maintain`, which drops it"
"""The comment of a table that an expiry has detached: no other one of its name is dropped."""
STATES = "agentobs_partitions"
"""The table of what maintenance did to months."""


@dataclass(frozen=True)
class Schema:
    """The schema of the tables: names are qualified with it, whatever the search path is."""

    name: str

    @property
    def quoted(self) -> str:
        """The schema's name for SQL."""
        return quoted(self.name)

    def qualified(self, table: str) -> str:
        """Return a table's name for SQL, quoted."""
        return f"{self.quoted}.{quoted(table)}"
