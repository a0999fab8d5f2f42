from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs import AgentDefinition

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def test_a_definition_comes_back_with_the_defaults_of_the_server(
    session: AsyncSession,
) -> None:
    definition = AgentDefinition(
        agent_name="agent-reader", agent_type="specialist", yaml_config={"name": "agent-reader"}
    )
    session.add(definition)
    await session.flush()

    assert definition.agent_version == "1.0.0"
    assert definition.capabilities == []
    assert definition.is_active is True
    assert definition.created_at.utcoffset() is not None
    assert definition.id is not None
