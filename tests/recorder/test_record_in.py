from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import select
from support.models import CANARY, new_definition
from support.recorders import decisions, events

from agentobs import (
    Alternative,
    Confidence,
    Decision,
    Recorder,
    RouterPerformanceMetric,
    RoutingDecision,
    Transformation,
    create_session_factory,
    record_in,
)
from agentobs.errors import ConstraintError, InvalidValueError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agentobs import DatabaseSettings


async def test_records_are_committed_with_the_work_of_the_host(
    agentobs_engine: AsyncEngine, agentobs_database: DatabaseSettings
) -> None:
    definition = new_definition()
    async with create_session_factory(agentobs_engine)() as session:
        session.add(definition)
        await session.flush()
        decision = record_in(
            session,
            RoutingDecision(
                selected_agent="agent",
                confidence=Confidence(trigger=1),
                alternatives=[Alternative(agent="other")],
                user_request="find it",
                context={"a": 1},
            ),
        )
        key = record_in(
            session,
            Transformation(
                target_agent="agent",
                agent_definition_id=definition.id,
                context_snapshot={"big": 2**70, "bad\x00": float("inf")},
                success=True,
                quality_score=0.92,
            ),
        )
        assert await decisions(agentobs_database) == []
        await session.commit()

    assert isinstance(decision, Decision)
    [metric] = await decisions(agentobs_database)
    assert (metric["id"], metric["correlation_id"]) == (decision.id, decision.correlation_id)
    assert metric["confidence_score"] == Decimal("0.4")
    assert metric["alternative_agents"] == [{"agent": "other", "confidence": None, "reason": None}]
    assert metric["user_request_hash"] == hashlib.sha256(b"find it").hexdigest()
    assert metric["context_hash"] == hashlib.sha256(b'{"a":1}').hexdigest()
    [event] = await events(agentobs_database)
    assert (event["id"], event["agent_definition_id"]) == (key, definition.id)
    assert event["context_snapshot"] == {
        "big": 2**70,
        "bad\ufffd": None,
        "_agentobs": {"sanitised": 2},
    }
    assert event["context_keys"] == ["big", "bad\ufffd"]
    assert (event["event_type"], event["quality_score"]) == (
        "transformation_complete",
        Decimal("0.92"),
    )


async def test_records_are_rolled_back_with_the_work_of_the_host(
    agentobs_engine: AsyncEngine, agentobs_database: DatabaseSettings
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        record_in(session, RoutingDecision(selected_agent="agent"))
        record_in(session, Transformation(target_agent="agent"))
        await session.flush()
        assert len((await session.scalars(select(RouterPerformanceMetric))).all()) == 1
        await session.rollback()

    assert await decisions(agentobs_database) == await events(agentobs_database) == []


async def test_records_go_where_they_are_placed_and_depend_on_no_row_that_is_to_come(
    recorder: Recorder, agentobs_engine: AsyncEngine, agentobs_database: DatabaseSettings
) -> None:
    parent = recorder.record(Transformation(target_agent="parent", success=True))
    await recorder.abarrier()
    with recorder.transformation(target_agent="outer", session_id=uuid4()) as outer:
        async with create_session_factory(agentobs_engine)() as session:
            record_in(session, RoutingDecision())
            record_in(session, Transformation(target_agent="inner", success=True))
            record_in(session, Transformation(target_agent="named", parent_event_id=parent))
            await session.commit()
    await recorder.abarrier()

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    [metric] = await decisions(agentobs_database)
    assert metric["correlation_id"] == outer.correlation_id
    for agent in ("inner", "named"):
        assert rows[agent]["correlation_id"] == outer.correlation_id
        assert rows[agent]["session_id"] == rows["outer"]["session_id"]
        assert rows[agent]["source_agent"] == "outer"
    assert rows["inner"]["parent_event_id"] is None
    assert rows["named"]["parent_event_id"] == parent


async def test_the_outcome_of_a_decision_that_a_host_committed_finds_its_row(
    recorder: Recorder, agentobs_engine: AsyncEngine, agentobs_database: DatabaseSettings
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        decision = record_in(session, RoutingDecision(confidence_score=0.5))
        recorder.outcome(decision, success=True, quality_score=0.25)
        await session.commit()
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    assert (row["actual_success"], row["prediction_error"]) == (True, Decimal("0.25"))


async def test_the_hook_sees_contexts_and_requests_first(
    agentobs_engine: AsyncEngine, agentobs_database: DatabaseSettings
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        record_in(
            session,
            Transformation(
                target_agent="agent", context_snapshot={"a": CANARY}, user_request=CANARY
            ),
            redact=lambda value: "…" if isinstance(value, str) else {"b": 1},
        )
        await session.commit()

    [row] = await events(agentobs_database)
    assert (row["context_snapshot"], row["context_keys"]) == ({"b": 1}, ["b"])
    assert row["user_request"] == "…"


def failing(_: Any) -> Any:
    raise RuntimeError("no")


async def test_what_is_wrong_is_told_where_it_is_and_nothing_is_added(
    agentobs_engine: AsyncEngine,
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        with pytest.raises(InvalidValueError):
            record_in(session, RoutingDecision(confidence_score=2))
        with pytest.raises(RuntimeError):
            record_in(session, RoutingDecision(user_request="secret"), redact=failing)
        assert not session.new


async def test_what_the_database_refuses_comes_with_the_flush(
    agentobs_engine: AsyncEngine,
) -> None:
    async with create_session_factory(agentobs_engine)() as session:
        record_in(session, Transformation(target_agent="a", agent_definition_id=uuid4()))
        with pytest.raises(ConstraintError, match="agent_definition_id"):
            await session.flush()
