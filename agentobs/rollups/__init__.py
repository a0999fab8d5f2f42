"""Hourly and daily sums of the event tables: exact, and never stale.

Maintenance folds hours that have closed; a row that is written, changed or deleted in one of them
marks it. Whoever reads takes clean hours from the rollups, and all else row by row.
"""

from __future__ import annotations

from agentobs.rollups.families import EXECUTION, FAMILIES, ROUTING, TARGET_US, Family
from agentobs.rollups.hours import DAY, HOUR, key_floor
from agentobs.rollups.keeping import are_still_kept, is_noted, keep_hours, note_rewritten
from agentobs.rollups.question import Shape, Span
from agentobs.rollups.reading import merged, select_is_folded
from agentobs.rollups.store import Store
from agentobs.rollups.taking_back import take_back
from agentobs.rollups.upkeep import Backlog, backlog_of, bring_up_to_date, forget_partitions

__all__ = [
    "DAY",
    "EXECUTION",
    "FAMILIES",
    "HOUR",
    "ROUTING",
    "TARGET_US",
    "Backlog",
    "Family",
    "Shape",
    "Span",
    "Store",
    "are_still_kept",
    "backlog_of",
    "bring_up_to_date",
    "forget_partitions",
    "is_noted",
    "keep_hours",
    "key_floor",
    "merged",
    "note_rewritten",
    "select_is_folded",
    "take_back",
]
