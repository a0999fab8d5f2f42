"""Do beforehand, beside the writers, what revision 0005 would do under one lock."""

from __future__ import annotations

from agentobs.migrations.online.run import undo_online, upgrade_online

__all__ = ["undo_online", "upgrade_online"]
