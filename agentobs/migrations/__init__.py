"""Upgrade, downgrade and check the database from Python, and print the SQL that would do it."""

from __future__ import annotations

from agentobs.migrations.runner import check, current, downgrade, sql, stamp, upgrade
from agentobs.migrations.scripts import VERSION_TABLE, RevisionInfo, revisions

__all__ = [
    "VERSION_TABLE",
    "RevisionInfo",
    "check",
    "current",
    "downgrade",
    "revisions",
    "sql",
    "stamp",
    "upgrade",
]
