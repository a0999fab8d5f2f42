"""Growth under control: partitions ahead of time, retention, and an archive that comes back."""

from __future__ import annotations

from agentobs.maintenance.months import Month
from agentobs.maintenance.plan import Plan
from agentobs.maintenance.policy import Policy
from agentobs.maintenance.restore import release, restore
from agentobs.maintenance.run import maintain, plan_maintenance
from agentobs.maintenance.workplace import Watcher

__all__ = [
    "Month",
    "Plan",
    "Policy",
    "Watcher",
    "maintain",
    "plan_maintenance",
    "release",
    "restore",
]
