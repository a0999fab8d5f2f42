from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect, select, text
from sqlalchemy.orm import configure_mappers
from support.models import CANARY, new_definition, new_event, new_metric

from agentobs import (
    AgentDefinition,
    AgentStatus,
    AgentTransformationEvent,
    EventType,
    FeedbackType,
    MetricType,
    RouterPerformanceMetric,
    metadata,
)
from agentobs.errors import AgentobsError, CreateAllRefusedError
from agentobs.models import Base

if TYPE_CHECKING:
    from enum import StrEnum

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

MODELS = [AgentDefinition, AgentTransformationEvent, RouterPerformanceMetric]
TABLES = ["agent_definitions", "agent_transformation_events", "router_performance_metrics"]


def test_the_metadata_holds_the_three_tables_and_no_other() -> None:
    assert sorted(metadata.tables) == TABLES
    assert Base.metadata is metadata


@pytest.mark.parametrize("table", TABLES)
async def test_the_database_holds_the_comments_of_the_models_on_table_and_columns(
    session: AsyncSession, table: str
) -> None:
    def comments(connection: Connection) -> dict[str, str | None]:
        inspector = inspect(connection)
        columns = {column["name"]: column["comment"] for column in inspector.get_columns(table)}
        return columns | {"": inspector.get_table_comment(table)["text"]}

    stored = await (await session.connection()).run_sync(comments)

    model = metadata.tables[table]
    assert stored == {column.name: column.comment for column in model.columns} | {"": model.comment}
    assert all(stored.values())


def test_every_relationship_is_lazy_raise() -> None:
    configure_mappers()
    relationships = {
        str(relationship): relationship.lazy
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
    }

    assert relationships == {
        "AgentDefinition.events": "raise",
        "AgentTransformationEvent.children": "raise",
        "AgentTransformationEvent.definition": "raise",
        "AgentTransformationEvent.parent": "raise",
    }


async def test_create_all_is_refused_and_names_the_migrations(
    agentobs_engine: AsyncEngine,
) -> None:
    async with agentobs_engine.connect() as connection:
        with pytest.raises(CreateAllRefusedError, match="alembic upgrade head") as caught:
            await connection.run_sync(metadata.create_all)
    assert "agentobs db upgrade" in str(caught.value)
    assert isinstance(caught.value, AgentobsError)


async def test_create_all_is_refused_for_a_single_table_and_without_a_check_too(
    session: AsyncSession,
) -> None:
    table = metadata.tables["agent_definitions"]
    connection = await session.connection()

    with pytest.raises(CreateAllRefusedError):
        await connection.run_sync(
            lambda sync: metadata.create_all(sync, tables=[table], checkfirst=False)
        )


async def test_the_create_all_of_a_host_is_not_affected(session: AsyncSession) -> None:
    host = MetaData()
    Table("host_orders", host, Column("id", Integer, primary_key=True))

    await (await session.connection()).run_sync(host.create_all)

    assert await session.scalar(text("SELECT count(*) FROM host_orders")) == 0


def test_repr_tells_who_it_is_and_shows_no_context_request_or_document() -> None:
    shown = [
        repr(
            new_definition(
                agent_name="agent-reader",
                yaml_config={CANARY: 1},
                parsed_metadata={CANARY: 1},
                registry_path=CANARY,
                triggers=[CANARY],
            )
        ),
        repr(
            new_event(
                context_snapshot={CANARY: 1},
                user_request=CANARY,
                transformation_reason=CANARY,
                error_message=CANARY,
                context_keys=[CANARY],
            )
        ),
        repr(new_metric(feedback_details={CANARY: 1}, alternative_agents=[CANARY])),
    ]

    assert shown[0] == "AgentDefinition(agent_name='agent-reader')"
    assert shown[1].startswith("AgentTransformationEvent(event_type=")
    assert shown[2].startswith("RouterPerformanceMetric(metric_type=")
    assert CANARY not in "".join(shown)


async def test_repr_loads_nothing_even_of_an_expired_object(session: AsyncSession) -> None:
    event = new_event()
    session.add(event)
    await session.flush()
    session.expire(event)

    assert repr(event) == "AgentTransformationEvent()"


@pytest.mark.parametrize("word", [*EventType])
async def test_a_known_word_reads_as_itself(session: AsyncSession, word: StrEnum) -> None:
    event = new_event(event_type=word)
    session.add(event)
    await session.flush()
    await session.refresh(event)

    assert event.event_type == word
    assert EventType(event.event_type) is word
    found = select(AgentTransformationEvent.id).where(AgentTransformationEvent.event_type == word)
    assert await session.scalar(found) == event.id


async def test_an_unknown_word_is_read_as_it_is(session: AsyncSession) -> None:
    await session.execute(
        text("INSERT INTO router_performance_metrics (metric_type) VALUES ('oracle_bones')")
    )

    metric = (await session.scalars(select(RouterPerformanceMetric))).one()

    assert metric.metric_type == "oracle_bones"


def test_the_words_are_those_of_the_schema() -> None:
    assert [*AgentStatus] == ["active", "deprecated", "testing"]
    assert [*EventType] == [
        "transformation_start",
        "transformation_complete",
        "transformation_failed",
    ]
    assert [*MetricType] == ["routing_decision", "cache_hit", "cache_miss", "fuzzy_match"]
    assert [*FeedbackType] == ["positive", "negative", "correction"]


async def test_making_one_table_by_itself_is_refused_too(session: AsyncSession) -> None:
    connection = await session.connection()

    with pytest.raises(CreateAllRefusedError, match="run the migrations"):
        await connection.run_sync(metadata.tables["agent_definitions"].create, checkfirst=False)


def test_a_misspelled_attribute_is_refused_with_the_name_that_was_meant() -> None:
    event = AgentTransformationEvent()

    with pytest.raises(AttributeError, match="no column routing_confidense: did you mean rout"):
        event.routing_confidense = 0.2  # type: ignore[attr-defined]


def test_metadata_is_not_taken_for_the_column_of_the_parsed_one() -> None:
    with pytest.raises(AttributeError, match="no column metadata: did you mean parsed_metadata"):
        AgentDefinition(agent_name="agent-a", metadata={"x": 1})


def test_private_and_annotated_attributes_of_a_host_may_be_assigned() -> None:
    class Cached(AgentTransformationEvent):
        __allow_unmapped__ = True
        cached: str

    event = Cached()
    event.cached = "yes"
    event._note = "mine"  # type: ignore[attr-defined]

    assert (event.cached, event._note) == ("yes", "mine")  # type: ignore[attr-defined]
