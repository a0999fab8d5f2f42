from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from agentobs.models import AgentDefinition

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.registry import AgentVersion


def write(path: Path, name: str, version: str = "1.0.0", *, more: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"name: {name}\nversion: '{version}'\nagent_type: specialist\n"
        f"capabilities: [reading]\ntriggers: [read]\n{more}"
    )
    return path


async def row_of(session: AsyncSession, name: str, version: str = "1.0.0") -> AgentDefinition:
    statement = select(AgentDefinition).where(
        AgentDefinition.agent_name == name, AgentDefinition.agent_version == version
    )
    found = await session.scalars(statement, execution_options={"populate_existing": True})
    return found.one()


def names(versions: tuple[AgentVersion, ...]) -> list[tuple[str, str]]:
    return [(version.name, version.version) for version in versions]


async def set_by_hand(session: AsyncSession, name: str, **values: Any) -> None:
    await session.execute(
        update(AgentDefinition).where(AgentDefinition.agent_name == name).values(**values)
    )
