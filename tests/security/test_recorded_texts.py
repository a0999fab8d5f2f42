"""What a recorder takes from its host is stored as it is, whatever it looks like."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from support.hostile import CLASSICS, STORABLE_TEXTS, UNSTORABLE, nothing_else_changes
from support.recorders import connected, strict_recorder
from support.shell import connect

from agentobs import (
    AgentTransformationEvent,
    Alternative,
    Recorder,
    RouterPerformanceMetric,
    RoutingDecision,
    Transformation,
    record_in,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

WRITTEN = ("agent_transformation_events", "router_performance_metrics")
NAME, LABEL, SHORT = 255, 100, 50


def decision_of(given_text: str) -> RoutingDecision:
    return RoutingDecision(
        selected_agent=given_text[:NAME],
        strategy=given_text[:LABEL],
        alternatives=[Alternative(agent=given_text[:NAME], reason=given_text)],
        cache_key=given_text[:NAME],
        user_request=given_text,
        context={given_text: given_text},
        metric_type=given_text[:LABEL],
    )


def run_of(given_text: str) -> Transformation:
    return Transformation(
        target_agent=given_text[:NAME],
        source_agent=given_text[:NAME],
        reason=given_text,
        context_snapshot={given_text: [given_text]},
        user_request=given_text,
        routing_strategy=given_text[:LABEL],
        success=False,
        error_type=given_text[:LABEL],
        error_message=given_text,
        started_at=datetime.now(UTC),
    )


def columns_of_a_decision(given_text: str) -> dict[str, Any]:
    return {
        "selected_agent": given_text[:NAME],
        "selection_strategy": given_text[:LABEL],
        "alternative_agents": [
            {"agent": given_text[:NAME], "confidence": None, "reason": given_text}
        ],
        "cache_key": given_text[:NAME],
        "user_request_hash": hashlib.sha256(given_text.encode()).hexdigest(),
        "metric_type": given_text[:LABEL],
        "feedback_type": given_text[:SHORT],
        "feedback_details": {given_text: given_text},
    }


def columns_of_a_run(given_text: str) -> dict[str, Any]:
    return {
        "target_agent": given_text[:NAME],
        "source_agent": given_text[:NAME],
        "transformation_reason": given_text,
        "context_snapshot": {given_text: [given_text]},
        "user_request": given_text,
        "routing_strategy": given_text[:LABEL],
        "error_type": given_text[:LABEL],
        "error_message": given_text,
    }


def record(recorder: Recorder, texts: list[str]) -> tuple[dict[UUID, Any], dict[UUID, Any]]:
    """Record each text wherever it goes; return what the rows have to hold, by their keys."""
    decisions, runs = {}, {}
    for each in texts:
        decision = recorder.routing_decision(decision_of(each))
        recorder.feedback(decision, each[:SHORT], {each: each})
        decisions[decision.id] = columns_of_a_decision(each)
        key = recorder.record(run_of(each))
        assert key is not None
        runs[key] = columns_of_a_run(each)
    return decisions, runs


async def rows_of(database: DatabaseSettings, model: Any, wanted: dict[UUID, Any]) -> Any:
    names = next(iter(wanted.values()))
    columns = [model.__table__.c[name] for name in ("id", *names)]
    statement = select(*columns).where(model.__table__.c.id.in_(wanted))
    async with connected(database) as connection:
        found = (await connection.execute(statement)).mappings()
        return {row["id"]: {name: row[name] for name in names} for row in found}


async def recorded_as_they_are(
    database: DatabaseSettings, folder: Path, texts: list[str], **options: Any
) -> None:
    with strict_recorder(database, folder, **options) as recorder:
        decisions, runs = record(recorder, texts)
    assert await rows_of(database, RouterPerformanceMetric, decisions) == decisions
    assert await rows_of(database, AgentTransformationEvent, runs) == runs


@pytest.mark.parametrize("delivery", ["block", "spool"])
async def test_a_text_that_looks_like_sql_is_recorded_as_it_is(
    guarded: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    async with nothing_else_changes(guarded, but=WRITTEN):
        await recorded_as_they_are(guarded, tmp_path, list(CLASSICS), delivery=delivery)


async def test_a_single_row_that_looks_like_sql_is_recorded_as_it_is(
    guarded: DatabaseSettings, tmp_path: Path
) -> None:
    # So few go by INSERT, more by COPY.
    for given_text in ("'; DROP TABLE canary.kept; --", "\\.", "$1"):
        await recorded_as_they_are(guarded, tmp_path, [given_text])


@settings(
    max_examples=5,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=STORABLE_TEXTS)
def test_any_text_is_recorded_as_it_is(
    guarded: DatabaseSettings, tmp_path: Path, texts: list[str]
) -> None:
    async def story() -> None:
        async with nothing_else_changes(guarded, but=WRITTEN):
            await recorded_as_they_are(guarded, tmp_path, texts)

    asyncio.run(story())


@pytest.mark.parametrize("given_text", UNSTORABLE, ids=ascii)
async def test_a_text_that_postgresql_does_not_store_is_recorded_without_what_it_refuses(
    guarded: DatabaseSettings, tmp_path: Path, given_text: str
) -> None:
    clean = given_text.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    async with nothing_else_changes(guarded, but=WRITTEN):
        with strict_recorder(guarded, tmp_path) as recorder:
            key = recorder.record(run_of(given_text))

        assert key is not None
        found = await rows_of(guarded, AgentTransformationEvent, {key: {"user_request": None}})
        assert found == {key: {"user_request": clean}}


async def test_a_text_that_looks_like_sql_joins_the_hosts_transaction_as_it_is(
    guarded: DatabaseSettings,
) -> None:
    wanted = {}
    async with nothing_else_changes(guarded, but=WRITTEN), connect(guarded) as connection:
        async with AsyncSession(connection) as session:
            for given_text in CLASSICS:
                key = record_in(session, run_of(given_text))
                assert isinstance(key, UUID)
                wanted[key] = columns_of_a_run(given_text)
            await session.commit()

        assert await rows_of(guarded, AgentTransformationEvent, wanted) == wanted
