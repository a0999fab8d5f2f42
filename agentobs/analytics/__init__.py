"""Questions about what agents and routers did, each over a window of time.

A module answers one kind of question: it builds a statement without touching a database, runs it in
the caller's session, and returns frozen results whose fields name their units. Reads only, but
for `refresh_agent_scores`.
"""

from __future__ import annotations

from agentobs.analytics.results import Result, Table
from agentobs.analytics.window import Window

__all__ = ["Result", "Table", "Window"]
