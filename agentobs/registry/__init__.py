"""Agent definition files (YAML), the table that mirrors them, and which agents of it fit.

Each name is imported when it is first asked for: to read files takes the extra [cli], to match
agents does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentobs.registry.candidates import Candidates
    from agentobs.registry.collisions import CollidingAgent, Collision, trigger_collisions
    from agentobs.registry.documents import AgentDocument, parse_document, read_document
    from agentobs.registry.matching import (
        MatchedAgent,
        PatternMatches,
        PatternProblem,
        TriggerMatches,
        find_agents_by_capabilities,
        find_agents_by_patterns,
        find_agents_by_triggers,
    )
    from agentobs.registry.patterns import PatternBounds
    from agentobs.registry.sync import (
        AgentVersion,
        FileFailure,
        FileWarning,
        SyncReport,
        sync_folder,
    )
    from agentobs.versions import VersionOrder, version_order

__all__ = [
    "AgentDocument",
    "AgentVersion",
    "Candidates",
    "CollidingAgent",
    "Collision",
    "FileFailure",
    "FileWarning",
    "MatchedAgent",
    "PatternBounds",
    "PatternMatches",
    "PatternProblem",
    "SyncReport",
    "TriggerMatches",
    "VersionOrder",
    "find_agents_by_capabilities",
    "find_agents_by_patterns",
    "find_agents_by_triggers",
    "parse_document",
    "read_document",
    "sync_folder",
    "trigger_collisions",
    "version_order",
]

_HOMES = {
    "AgentDocument": "agentobs.registry.documents",
    "AgentVersion": "agentobs.registry.sync",
    "Candidates": "agentobs.registry.candidates",
    "CollidingAgent": "agentobs.registry.collisions",
    "Collision": "agentobs.registry.collisions",
    "FileFailure": "agentobs.registry.sync",
    "FileWarning": "agentobs.registry.sync",
    "MatchedAgent": "agentobs.registry.matching",
    "PatternBounds": "agentobs.registry.patterns",
    "PatternMatches": "agentobs.registry.matching",
    "PatternProblem": "agentobs.registry.matching",
    "SyncReport": "agentobs.registry.sync",
    "TriggerMatches": "agentobs.registry.matching",
    "VersionOrder": "agentobs.versions",
    "find_agents_by_capabilities": "agentobs.registry.matching",
    "find_agents_by_patterns": "agentobs.registry.matching",
    "find_agents_by_triggers": "agentobs.registry.matching",
    "parse_document": "agentobs.registry.documents",
    "read_document": "agentobs.registry.documents",
    "sync_folder": "agentobs.registry.sync",
    "trigger_collisions": "agentobs.registry.collisions",
    "version_order": "agentobs.versions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentobs.registry' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
