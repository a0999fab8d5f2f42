"""Triggers that several agents have, between which a router can't tell."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from agentobs.registry.candidates import ACTIVE, entries, newest_of, rows_of, select_agents
from agentobs.versions import version_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.registry.candidates import Candidates


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class CollidingAgent(_Answer):
    """An agent in a collision, and the trigger or pattern as its definition has it."""

    agent_name: str
    agent_version: str
    written: str


class Collision(_Answer):
    """A trigger phrase or pattern that agents of different names have."""

    kind: Literal["trigger", "pattern"]
    text: str
    agents: tuple[CollidingAgent, ...]


async def trigger_collisions(
    session: AsyncSession, *, candidates: Candidates = ACTIVE
) -> tuple[Collision, ...]:
    """Return the triggers, and then the patterns, that agents of different names have.

    Triggers are compared without regard to case and white space, `text` being the form that is
    compared; patterns as they are written. Those of most agents come first.
    """
    rows = newest_of(await rows_of(session, select_agents(candidates)), candidates)
    return (
        *_collisions("trigger", rows, "triggers", _normalised),
        *_collisions("pattern", rows, "trigger_patterns", str),
    )


def _collisions(
    kind: Literal["trigger", "pattern"],
    rows: Sequence[RowMapping],
    column: str,
    normalise: Callable[[str], str],
) -> list[Collision]:
    holders: dict[str, dict[UUID, CollidingAgent]] = defaultdict(dict)
    for row in rows:
        agent = {key: row[key] for key in ("agent_name", "agent_version")}
        for written in entries(row, column):
            if key := normalise(written):
                holders[key].setdefault(row["id"], CollidingAgent(**agent, written=written))
    found = [
        Collision(kind=kind, text=key, agents=tuple(sorted(agents.values(), key=_by_name)))
        for key, agents in holders.items()
        if len({agent.agent_name for agent in agents.values()}) > 1
    ]
    return sorted(found, key=lambda each: (-len(each.agents), each.text))


def _by_name(agent: CollidingAgent) -> tuple[Any, ...]:
    return agent.agent_name, version_order(agent.agent_version)


def _normalised(phrase: str) -> str:
    return " ".join(phrase.split()).casefold()
