"""Upgrade, downgrade and check the database from Python, and print the SQL that would do it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentobs.migrations.adoption import Adoption, adopt, inspect
from agentobs.migrations.granting import grant
from agentobs.migrations.online import undo_online, upgrade_online
from agentobs.migrations.runner import check, current, downgrade, sql, stamp, upgrade
from agentobs.migrations.scripts import VERSION_TABLE, RevisionInfo, revisions, version_location

if TYPE_CHECKING:
    from agentobs.migrations.host_branch import branch_options
    from agentobs.migrations.host_filters import include_name, include_object
    from agentobs.migrations.host_runs import upgrade_with_host

__all__ = [
    "VERSION_TABLE",
    "Adoption",
    "RevisionInfo",
    "adopt",
    "branch_options",
    "check",
    "current",
    "downgrade",
    "grant",
    "include_name",
    "include_object",
    "inspect",
    "revisions",
    "sql",
    "stamp",
    "undo_online",
    "upgrade",
    "upgrade_online",
    "upgrade_with_host",
    "version_location",
]

# What the env.py of a host asks for, and nobody else.
_HOMES = {
    "branch_options": "agentobs.migrations.host_branch",
    "include_name": "agentobs.migrations.host_filters",
    "include_object": "agentobs.migrations.host_filters",
    "upgrade_with_host": "agentobs.migrations.host_runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentobs.migrations' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
