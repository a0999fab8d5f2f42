from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import (
    ARRAY,
    Integer,
    Numeric,
    String,
    Uuid,
    cast,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from support.leaks import nothing_leaks
from support.models import (
    CANARY,
    new_definition,
    new_event,
    new_metric,
    required_of_an_event,
)

from agentobs import AgentDefinition, AgentTransformationEvent, RouterPerformanceMetric
from agentobs.bulk import copy_rows
from agentobs.errors import (
    ConnectionFailedError,
    ConstraintError,
    DatabaseError,
    InvalidDataError,
    StatementTimeoutError,
)

if TYPE_CHECKING:
    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.models.base import Base

MODELS: list[type[Base]] = [AgentDefinition, AgentTransformationEvent, RouterPerformanceMetric]
COLUMNS = [column for model in MODELS for column in model.__table__.columns]
REQUIRED: dict[str, dict[str, Any]] = {
    "agent_definitions": {"agent_name": "agent", "agent_type": "t", "yaml_config": {}},
    "agent_transformation_events": required_of_an_event(),
    "router_performance_metrics": {"metric_type": "m"},
}


def model_of(column: Column[Any]) -> type[Base]:
    return next(model for model in MODELS if model.__table__ is column.table)


def unfit(column: Column[Any]) -> Any:
    """Return a value that the column does not take, and that holds the canary."""
    if isinstance(column.type, String):
        return CANARY + ("x" * column.type.length if column.type.length else "\ud800")
    if isinstance(column.type, JSONB):
        return {CANARY: [CANARY, float("nan")]}
    return [CANARY, 1] if isinstance(column.type, ARRAY) else CANARY


def row_with(column: Column[Any]) -> dict[str, Any]:
    return REQUIRED[column.table.name] | {column.name: unfit(column)}


def everywhere(row: dict[str, Any], model: type[Base]) -> dict[str, Any]:
    """Put the canary into every column that takes it."""
    filled: dict[str, Any] = {}
    for column in model.__table__.columns:
        if column.name in {"id", "agent_version", "definition_hash"}:
            continue
        if isinstance(column.type, String):
            filled[column.name] = CANARY
        elif isinstance(column.type, JSONB):
            filled[column.name] = {CANARY: CANARY}
        elif column.name in {"capabilities", "triggers", "trigger_patterns", "context_keys"}:
            filled[column.name] = [CANARY]
    return filled | row


@pytest.mark.parametrize("column", COLUMNS, ids=str)
async def test_a_value_that_a_column_refuses_is_not_shown_by_core(
    session: AsyncSession, column: Column[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog):
        await session.execute(insert(model_of(column)).values(row_with(column)))


@pytest.mark.parametrize("column", COLUMNS, ids=str)
async def test_a_value_that_a_column_refuses_is_not_shown_among_many_rows(
    session: AsyncSession, column: Column[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog):
        await session.execute(insert(model_of(column)), [row_with(column), row_with(column)])


@pytest.mark.parametrize("column", COLUMNS, ids=str)
async def test_a_value_that_a_column_refuses_is_not_shown_by_copy(
    session: AsyncSession, column: Column[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog):
        await copy_rows(session, model_of(column), [row_with(column)])


@pytest.mark.parametrize("column", COLUMNS, ids=str)
async def test_a_value_that_a_column_refuses_is_not_shown_by_the_models(
    session: AsyncSession, column: Column[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_leaks(caplog):
        session.add(model_of(column)(**row_with(column)))
        await session.flush()


BROKEN_ROWS: dict[str, tuple[type[Base], dict[str, Any], str]] = {
    "foreign key": (AgentTransformationEvent, {"agent_definition_id": uuid4()}, "23503"),
    "check": (AgentTransformationEvent, {"routing_confidence": 2}, "23514"),
    "not null": (AgentTransformationEvent, {"target_agent": None}, "23502"),
    "check of a metric": (RouterPerformanceMetric, {"confidence_score": 2}, "23514"),
    "check of a definition": (AgentDefinition, {"success_rate": 2}, "23514"),
}


def broken_row(kind: str) -> tuple[type[Base], dict[str, Any], str]:
    model, fault, sqlstate = BROKEN_ROWS[kind]
    return model, everywhere(REQUIRED[model.__tablename__] | fault, model), sqlstate


@pytest.mark.parametrize("kind", BROKEN_ROWS)
async def test_a_row_that_breaks_a_constraint_is_not_shown_by_core(
    session: AsyncSession, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, row, sqlstate = broken_row(kind)

    with nothing_leaks(caplog) as caught:
        await session.execute(insert(model).values(row))

    assert isinstance(caught.error, ConstraintError)
    assert caught.error.sqlstate == sqlstate


@pytest.mark.parametrize("kind", BROKEN_ROWS)
async def test_a_row_that_breaks_a_constraint_is_not_shown_by_copy(
    session: AsyncSession, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, row, sqlstate = broken_row(kind)

    with nothing_leaks(caplog) as caught:
        await copy_rows(session, model, [row])

    assert isinstance(caught.error, ConstraintError)
    assert caught.error.sqlstate == sqlstate
    assert caught.error.table == model.__tablename__


async def test_objects_that_break_a_constraint_are_not_shown(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    model, row, _ = broken_row("foreign key")
    events = [new_event(), AgentTransformationEvent(**row), new_event()]

    with nothing_leaks(caplog) as caught:
        session.add_all(events)
        await session.flush()

    assert isinstance(caught.error, ConstraintError)
    assert caught.error.table == model.__tablename__
    assert caught.error.constraint == f"{model.__tablename__}_agent_definition_id_fkey"


async def test_a_duplicate_is_not_shown(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    session.add(new_definition(agent_name=CANARY))
    await session.flush()

    with nothing_leaks(caplog) as caught:
        session.add(new_definition(agent_name=CANARY))
        await session.flush()

    assert isinstance(caught.error, ConstraintError)
    assert caught.error.constraint == "agent_definitions_name_version_unique"
    assert "this version of the agent is stored already" in str(caught.error)


@pytest.mark.parametrize("type_", [Integer(), Numeric(), Uuid(), INTERVAL(), JSONB()], ids=repr)
async def test_a_text_that_the_server_can_not_convert_is_not_shown(
    session: AsyncSession, type_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # The cast of a text is made on the server, whose message quotes it.
    converted = cast(func.concat(literal(CANARY), literal("!")), type_)

    with nothing_leaks(caplog) as caught:
        await session.execute(select(converted))

    assert isinstance(caught.error, InvalidDataError)
    assert str(caught.error.sqlstate).startswith("22")


async def test_what_a_trigger_of_the_host_says_is_not_shown(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    await session.execute(
        text(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'I refuse: %', NEW.user_request; END $$"
        )
    )
    await session.execute(
        text(
            "CREATE TRIGGER refuse BEFORE INSERT ON agent_transformation_events "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    )

    with nothing_leaks(caplog) as caught:
        session.add(new_event(user_request=CANARY))
        await session.flush()

    assert isinstance(caught.error, DatabaseError)
    assert caught.error.sqlstate == "P0001"


async def test_a_statement_that_is_cancelled_shows_no_parameter(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    await session.execute(text("SET LOCAL statement_timeout = 50"))

    with nothing_leaks(caplog) as caught:
        await session.execute(select(literal(CANARY), func.pg_sleep(10)))

    assert isinstance(caught.error, StatementTimeoutError)


async def test_a_connection_that_ends_shows_no_parameter(
    agentobs_session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    suicide = func.pg_terminate_backend(func.pg_backend_pid())

    with nothing_leaks(caplog) as caught:
        await agentobs_session.execute(select(literal(CANARY), suicide))

    assert isinstance(caught.error, ConnectionFailedError)


async def test_a_metric_is_not_shown_by_its_check(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    metric = new_metric(cache_key=CANARY, feedback_details={CANARY: CANARY})
    session.add(metric)
    await session.flush()

    with nothing_leaks(caplog) as caught:
        metric.confidence_score = select(literal(7)).scalar_subquery()
        await session.flush()

    assert isinstance(caught.error, ConstraintError)
