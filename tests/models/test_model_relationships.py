from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import joinedload, selectinload
from support.models import new_definition, new_event, statements_of

from agentobs import AgentDefinition, AgentTransformationEvent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def test_a_definition_and_its_events_know_each_other(session: AsyncSession) -> None:
    definition = new_definition(events=[new_event(), new_event()])
    session.add(definition)
    await session.flush()
    key = definition.id
    session.expunge_all()

    found = await session.get_one(
        AgentDefinition, key, options=[selectinload(AgentDefinition.events)]
    )

    assert len(found.events) == 2
    assert all(event.agent_definition_id == key for event in found.events)


async def test_a_parent_and_its_children_know_each_other(session: AsyncSession) -> None:
    parent = new_event(target_agent="agent-workflow-coordinator")
    parent.children = [new_event(), new_event()]
    session.add(parent)
    await session.flush()
    key = parent.id
    session.expunge_all()

    children = (
        await session.scalars(
            select(AgentTransformationEvent)
            .where(AgentTransformationEvent.parent_event_id == key)
            .options(joinedload(AgentTransformationEvent.parent))
        )
    ).all()

    assert len(children) == 2
    assert {child.parent.target_agent for child in children if child.parent} == {
        "agent-workflow-coordinator"
    }


@pytest.mark.parametrize("name", ["definition", "parent", "children"])
async def test_a_relationship_of_an_event_that_was_not_asked_for_raises(
    session: AsyncSession, name: str
) -> None:
    event = new_event(parent=new_event(), definition=new_definition())
    session.add(event)
    await session.flush()
    key = event.id
    session.expunge_all()
    found = await session.get_one(AgentTransformationEvent, key)

    with (
        statements_of(session) as sent,
        pytest.raises(
            InvalidRequestError, match=rf"\.{name}' is not available due to lazy='raise'"
        ),
    ):
        getattr(found, name)
    assert sent == []


async def test_the_events_of_a_definition_that_were_not_asked_for_raise(
    session: AsyncSession,
) -> None:
    definition = new_definition()
    session.add(definition)
    await session.flush()
    key = definition.id
    session.expunge_all()
    found = await session.get_one(AgentDefinition, key)

    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = found.events


async def test_an_event_moves_to_another_definition_without_loading_the_first(
    session: AsyncSession,
) -> None:
    event = new_event(definition=new_definition(), parent=new_event())
    other = new_definition()
    session.add_all([event, other])
    await session.flush()
    event_key, other_key = event.id, other.id
    session.expunge_all()
    found = await session.get_one(AgentTransformationEvent, event_key)
    definition = await session.get_one(AgentDefinition, other_key)

    with statements_of(session) as sent:
        found.definition = definition
        found.parent = None
        await session.flush()
    assert sent == ["UPDATE"]
    assert found.agent_definition_id == other_key
    assert found.parent_event_id is None


async def test_a_definition_with_events_can_not_be_deleted_and_nothing_is_loaded_to_find_out(
    session: AsyncSession,
) -> None:
    definition = new_definition(events=[new_event()])
    session.add(definition)
    await session.flush()
    key = definition.id
    session.expunge_all()
    await session.delete(await session.get_one(AgentDefinition, key))

    with (
        statements_of(session) as sent,
        pytest.raises(IntegrityError, match="agent_transformation_events_agent_definition_id_fkey"),
    ):
        await session.flush()
    assert sent == ["DELETE"]


async def test_a_definition_whose_events_are_loaded_is_refused_too_and_no_event_loses_its_link(
    session: AsyncSession,
) -> None:
    definition = new_definition(events=[new_event()])
    session.add(definition)
    await session.flush()
    await session.delete(definition)

    with statements_of(session) as sent, pytest.raises(IntegrityError):
        await session.flush()
    assert sent == ["DELETE"]


async def test_a_definition_without_events_is_deleted(session: AsyncSession) -> None:
    definition = new_definition()
    session.add(definition)
    await session.flush()
    key = definition.id

    await session.delete(definition)
    await session.flush()

    assert await session.get(AgentDefinition, key) is None


async def test_an_event_is_deleted_without_its_relationships_being_loaded(
    session: AsyncSession,
) -> None:
    event = new_event(definition=new_definition(), parent=new_event())
    session.add(event)
    await session.flush()
    key = event.id
    session.expunge_all()
    await session.delete(await session.get_one(AgentTransformationEvent, key))

    with statements_of(session) as sent:
        await session.flush()
    assert sent == ["DELETE"]
    assert await session.scalar(select(func.count()).select_from(AgentTransformationEvent)) == 1


async def test_children_of_a_deleted_event_have_no_parent(session: AsyncSession) -> None:
    child = new_event()
    parent = new_event(children=[child])
    session.add(parent)
    await session.flush()
    key = parent.id
    session.expunge_all()
    await session.delete(await session.get_one(AgentTransformationEvent, key))

    await session.flush()

    left = await session.get_one(AgentTransformationEvent, child.id)
    assert left.parent_event_id is None


@pytest.mark.parametrize(("parent_key", "child_key"), [(1, 2), (2, 1)])
async def test_a_parent_that_was_loaded_with_its_children_is_deleted_together_with_them(
    session: AsyncSession, parent_key: int, child_key: int
) -> None:
    child = new_event(id=UUID(int=child_key))
    session.add(new_event(id=UUID(int=parent_key), children=[child]))
    await session.flush()
    session.expunge_all()
    parent = await session.get_one(
        AgentTransformationEvent,
        UUID(int=parent_key),
        options=[selectinload(AgentTransformationEvent.children)],
    )

    for event in [parent, *parent.children]:
        await session.delete(event)
    await session.flush()

    assert await session.scalar(select(func.count()).select_from(AgentTransformationEvent)) == 0


async def test_a_workflow_may_be_written_at_once_by_the_keys_that_its_events_were_given(
    session: AsyncSession,
) -> None:
    root = new_event(id=UUID(int=2))
    leaf = new_event(id=UUID(int=1), parent_event_id=root.id)
    session.add_all([root, leaf])

    with statements_of(session) as sent:
        await session.flush()
    assert set(sent) == {"INSERT"}


async def test_an_event_of_an_unknown_definition_is_refused_by_the_database(
    session: AsyncSession,
) -> None:
    session.add(new_event(agent_definition_id=UUID(int=7)))

    with pytest.raises(IntegrityError, match="agent_definition_id_fkey"):
        await session.flush()
