"""What is written to jsonb, text and text[] and read back is the same value.

jsonb keeps numbers as decimals: a float that is whole, such as 1e20, comes back as an int, and
-0.0 as 0.0. So numbers are compared by value, all else by type and value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import NullPool, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from support.models import new_definition, new_event, new_metric

from agentobs import AgentTransformationEvent, EventType, create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs import DatabaseSettings

RoundTrip = Callable[[AgentTransformationEvent], AgentTransformationEvent]

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63 - 2, max_value=2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=15,
)


@pytest.fixture(scope="module")
def round_trip(agentobs_shared_database: DatabaseSettings) -> Iterator[RoundTrip]:
    """Write an event, forget it and read it anew: one connection for every example."""
    engine = create_engine(agentobs_shared_database, poolclass=NullPool)

    async def write_and_read(
        session: AsyncSession, event: AgentTransformationEvent
    ) -> AgentTransformationEvent:
        session.add(event)
        await session.flush()
        session.expunge_all()
        return await session.get_one(AgentTransformationEvent, event.id)

    with asyncio.Runner() as runner:
        session = AsyncSession(engine)
        yield lambda event: runner.run(write_and_read(session, event))
        runner.run(session.close())
        runner.run(engine.dispose())


def is_same(stored: Any, sent: Any) -> bool:
    if isinstance(sent, dict):
        return (
            isinstance(stored, dict)
            and stored.keys() == sent.keys()
            and all(is_same(stored[key], item) for key, item in sent.items())
        )
    if isinstance(sent, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(sent)
            and all(map(is_same, stored, sent))
        )
    if isinstance(sent, float):
        return type(stored) in {int, float} and float(stored) == sent
    return type(stored) is type(sent) and stored == sent


@settings(deadline=None)
@given(document=DOCUMENTS)
def test_any_document_comes_back_as_it_was(round_trip: RoundTrip, document: object) -> None:
    event = round_trip(new_event(context_snapshot=document))

    assert is_same(event.context_snapshot, document)


@settings(deadline=None)
@given(words=TEXTS, name=TEXTS.map(lambda text: text[:255]), items=st.lists(TEXTS, max_size=5))
def test_any_text_comes_back_as_it_was(
    round_trip: RoundTrip, words: str, name: str, items: list[str]
) -> None:
    event = round_trip(
        new_event(user_request=words, source_agent=name, context_keys=items, context_snapshot=words)
    )

    assert event.user_request == words
    assert event.source_agent == name
    assert event.context_keys == items
    assert event.context_snapshot == words


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (1e20, 100000000000000000000),
        (1.0, 1.0),
        (5e-324, 5e-324),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (10**40 + 1, 10**40 + 1),
        (-(10**400) - 1, -(10**400) - 1),
        ({"deep": [2**70, {"x": 0.1}]}, {"deep": [2**70, {"x": 0.1}]}),
    ],
)
async def test_a_number_keeps_its_digits(session: AsyncSession, sent: object, read: object) -> None:
    event = new_event(context_snapshot=sent)
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.context_snapshot == read
    assert type(event.context_snapshot) is type(read)


async def test_none_as_a_document_is_null_in_sql_and_none_within_one_is_null_in_json(
    session: AsyncSession,
) -> None:
    absent, present = new_event(context_snapshot=None), new_event(context_snapshot={"a": None})
    session.add_all([absent, present])
    await session.flush()
    context = AgentTransformationEvent.context_snapshot

    assert await session.scalar(
        select(func.count()).where(AgentTransformationEvent.id == absent.id, context.is_(None))
    )
    assert (
        await session.scalar(
            select(func.jsonb_typeof(context["a"])).where(AgentTransformationEvent.id == present.id)
        )
        == "null"
    )


async def test_the_order_of_keys_does_not_count(session: AsyncSession) -> None:
    definition = new_definition(yaml_config={"zebra": 1, "a": {"y": 1, "x": 2}})
    session.add(definition)
    await session.flush()
    await session.refresh(definition)

    assert definition.yaml_config == {"a": {"x": 2, "y": 1}, "zebra": 1}


async def test_instants_keys_and_words_in_a_document_become_text(session: AsyncSession) -> None:
    key = UUID(int=5)
    metric = new_metric(
        feedback_details={
            "at": datetime(2025, 1, 1, tzinfo=UTC),
            "key": key,
            "kind": EventType.FAILED,
            "pair": (1, 2),
        }
    )
    session.add(metric)
    await session.flush()
    await session.refresh(metric)

    assert metric.feedback_details == {
        "at": "2025-01-01T00:00:00+00:00",
        "key": str(key),
        "kind": "transformation_failed",
        "pair": [1, 2],
    }


async def test_a_document_is_searched_by_containment(session: AsyncSession) -> None:
    definition = new_definition(yaml_config={"name": "a", "model": {"tier": "large"}})
    session.add_all([definition, new_definition()])
    await session.flush()

    found = await session.scalars(
        select(type(definition).id).where(
            type(definition).yaml_config.contains({"model": {"tier": "large"}})
        )
    )

    assert found.all() == [definition.id]
