"""Agent definition files (YAML) and the table that mirrors them."""

from __future__ import annotations

from agentobs.registry.documents import AgentDocument, parse_document, read_document
from agentobs.registry.sync import (
    AgentVersion,
    FileFailure,
    FileWarning,
    SyncReport,
    sync_folder,
)

__all__ = [
    "AgentDocument",
    "AgentVersion",
    "FileFailure",
    "FileWarning",
    "SyncReport",
    "parse_document",
    "read_document",
    "sync_folder",
]
