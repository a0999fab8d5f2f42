from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import func, inspect, null, select, text
from support.models import new_definition, new_event, new_metric, statements_of

from agentobs import (
    AgentDefinition,
    AgentStatus,
    AgentTransformationEvent,
    create_session_factory,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from agentobs.models import Base


async def test_a_new_definition_has_the_defaults_of_the_server_without_a_select(
    session: AsyncSession,
) -> None:
    definition = new_definition()
    session.add(definition)

    with statements_of(session) as sent:
        await session.flush()

        assert definition.agent_version == "1.0.0"
        assert definition.status == AgentStatus.ACTIVE
        assert definition.is_active is True
        assert definition.capabilities == []
        assert definition.triggers == []
        assert definition.trigger_patterns == []
        assert definition.created_at == definition.updated_at
        assert definition.created_at.utcoffset() == timedelta(0)
        assert definition.last_loaded_at is None
    assert sent == ["INSERT"]


async def test_a_new_event_has_its_instant_without_a_select(session: AsyncSession) -> None:
    event = new_event()
    session.add(event)

    with statements_of(session) as sent:
        await session.flush()

        assert abs(event.started_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert event.completed_at is None
        assert event.success is None
        assert event.context_keys is None
    assert sent == ["INSERT"]


async def test_a_new_metric_has_the_defaults_of_the_server_without_a_select(
    session: AsyncSession,
) -> None:
    metric = new_metric()
    session.add(metric)

    with statements_of(session) as sent:
        await session.flush()

        assert metric.alternatives_count == 0
        assert metric.feedback_provided is False
        assert metric.cache_hit is None
        assert metric.measured_at.utcoffset() == timedelta(0)
    assert sent == ["INSERT"]


@pytest.mark.parametrize(
    ("maker", "instant"),
    [(new_definition, "created_at"), (new_event, "started_at"), (new_metric, "measured_at")],
)
async def test_many_rows_get_their_keys_and_defaults_from_one_insert(
    session: AsyncSession, maker: Callable[[], Base], instant: str
) -> None:
    rows = [maker() for _ in range(20)]
    session.add_all(rows)

    with statements_of(session) as sent:
        await session.flush()

        assert len({inspect(row).identity for row in rows}) == 20
        assert all(getattr(row, instant).utcoffset() is not None for row in rows)
    assert sent == ["INSERT"]


async def test_a_row_of_plain_sql_gets_its_key_from_the_server(session: AsyncSession) -> None:
    row = await session.execute(
        text("INSERT INTO router_performance_metrics (metric_type) VALUES ('x') RETURNING id")
    )

    assert isinstance(row.scalar_one(), UUID)


async def test_an_explicit_value_wins_over_the_default_of_the_server(
    session: AsyncSession,
) -> None:
    started_at = datetime(2024, 2, 29, 12, tzinfo=UTC)
    event = new_event(started_at=started_at)
    metric = new_metric(alternatives_count=null(), feedback_provided=True)
    session.add_all([event, metric])
    await session.flush()
    await session.refresh(event)
    await session.refresh(metric)

    assert event.started_at == started_at
    assert metric.alternatives_count is None
    assert metric.feedback_provided is True


async def test_updated_at_moves_with_every_update_and_is_fresh_on_the_object(
    agentobs_engine: AsyncEngine,
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        definition = new_definition()
        session.add(definition)
        await session.commit()
        made_at = definition.updated_at

        definition.domain = "debugging"
        with statements_of(session) as sent:
            await session.commit()

            assert definition.updated_at > made_at
            assert definition.created_at == made_at
        assert sent == ["UPDATE"]

        stored = await session.scalar(
            select(AgentDefinition.updated_at).where(AgentDefinition.id == definition.id)
        )
        assert stored == definition.updated_at


async def test_the_trigger_keeps_updated_at_whatever_a_writer_says(
    agentobs_engine: AsyncEngine,
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        definition = new_definition()
        session.add(definition)
        await session.commit()

        definition.updated_at = datetime(2000, 1, 1, tzinfo=UTC)
        await session.commit()
        await session.refresh(definition)

        assert definition.updated_at > definition.created_at


async def test_an_sql_expression_is_a_value_like_any_other(session: AsyncSession) -> None:
    event = new_event(routing_confidence=0.5, completed_at=func.now())
    session.add(event)
    await session.flush()
    event.quality_score = AgentTransformationEvent.routing_confidence
    event.context_size_bytes = func.length("twelve bytes")
    await session.flush()
    await session.refresh(event)

    assert event.completed_at is not None
    assert event.quality_score == event.routing_confidence
    assert event.context_size_bytes == 12


async def test_an_object_stays_readable_after_the_commit(agentobs_engine: AsyncEngine) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        definition = new_definition(agent_name="agent-reader")
        session.add(definition)
        await session.commit()

    assert definition.agent_name == "agent-reader"
    assert definition.is_active is True
