from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text
from support.event_rows import EVENTS, METRICS
from support.maintenance import texts_in
from support.recorder_rows import (
    MODELS,
    NOW,
    Event,
    Metric,
    completion,
    feedback,
    outcome,
    records_of,
    stored,
)
from support.shell import connect, connect_in_transaction

from agentobs import create_engine, migrations
from agentobs.bulk import copy_records
from agentobs.errors import ConstraintError, InvalidDataError
from agentobs.keys import uuid7_at
from agentobs.recorder.writing.statements import (
    Completion,
    complete_runs,
    completed,
    existing,
    insert_records,
    insert_values,
    update_feedback,
    update_outcomes,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.models.base import Base

EARLIER, LATER = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)

CHANGES_SCHEMA = True


@pytest_asyncio.fixture
async def writer(agentobs_shared_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a connection whose transaction is rolled back."""
    async with connect_in_transaction(agentobs_shared_database) as connection:
        yield connection


@pytest_asyncio.fixture
async def eye(agentobs_database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Yield a look into the test's own database, in autocommit."""
    async with connect(agentobs_database) as found:
        yield found


async def values_of(connection: AsyncConnection, model: type[Base], key: UUID, *names: str) -> Any:
    columns = (model.__table__.columns[name] for name in names)
    found = await connection.execute(select(*columns).where(model.__table__.c.id == key))
    return tuple(found.one())


async def count_of(connection: AsyncConnection, model: type[Base]) -> int:
    return await connection.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("model", MODELS)
async def test_a_row_is_the_same_by_insert_and_by_copy(
    writer: AsyncConnection, model: type[Base]
) -> None:
    columns, records = records_of(model, 3)
    found = []
    for write in (insert_values, copy_records):
        savepoint = await writer.begin_nested()
        await write(writer, model, columns, records)
        found.append(await texts_in(writer, model.__tablename__))
        await savepoint.rollback()

    assert found[0] == found[1]
    assert len(found[0]) == 3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 1, 7, 50, 700])
async def test_a_batch_of_any_size_is_stored(
    writer: AsyncConnection, model: type[Base], count: int
) -> None:
    await stored(writer, model, count)

    assert await count_of(writer, model) == count


@pytest.mark.parametrize("count", [1, 200])
async def test_columns_that_are_left_out_get_the_defaults_of_the_database(
    writer: AsyncConnection, count: int
) -> None:
    await insert_records(writer, Metric, ["metric_type"], [("cache_hit",)] * count)

    found = await writer.execute(select(Metric.alternatives_count, Metric.feedback_provided))
    assert set(map(tuple, found)) == {(0, False)}


@pytest.mark.parametrize("count", [2, 200])
async def test_a_batch_with_a_row_that_is_refused_leaves_no_row(
    eye: AsyncConnection, count: int
) -> None:
    columns, records = records_of(Event, count - 1)
    _, [broken] = records_of(Event, 1, target_agent="x" * 256)

    with pytest.raises(InvalidDataError, match="too long"):
        await insert_records(eye, Event, columns, [*records, broken])

    assert await count_of(eye, Event) == 0


@pytest.mark.parametrize("count", [2, 200])
async def test_a_parent_that_is_missing_is_named(writer: AsyncConnection, count: int) -> None:
    missing = uuid4()

    with pytest.raises(ConstraintError) as caught:
        await stored(writer, Event, count, parent_event_id=missing)

    assert caught.value.missing == (missing,)


@pytest.mark.parametrize("count", [2, 200])
async def test_nothing_is_committed_but_by_the_caller(
    agentobs_database: DatabaseSettings, eye: AsyncConnection, count: int
) -> None:
    async with connect_in_transaction(agentobs_database) as connection:
        await stored(connection, Event, count)

    assert await count_of(eye, Event) == 0


@pytest.mark.parametrize("model", MODELS)
async def test_of_ids_those_that_are_stored_exist(
    writer: AsyncConnection, model: type[Base]
) -> None:
    keys = await stored(writer, model, 3)

    assert await existing(writer, model, [uuid4(), *keys[:2], uuid7_at(LATER)]) == set(keys[:2])


async def test_of_events_those_that_ended_are_completed(writer: AsyncConnection) -> None:
    ended = await stored(writer, Event, 1, completed_at=NOW)
    running = await stored(writer, Event, 1)

    assert await completed(writer, [*ended, *running, uuid4()]) == set(ended)


async def test_a_batch_of_nothing_matches_nothing(writer: AsyncConnection) -> None:
    assert await existing(writer, Event, []) == set()
    assert await completed(writer, []) == set()
    assert await update_outcomes(writer, []) == set()
    assert await update_feedback(writer, []) == set()
    assert await complete_runs(writer, []) == set()


OUTCOME = (
    "selection_validated",
    "actual_success",
    "actual_quality_score",
    "prediction_error",
    "validated_at",
)


async def test_an_outcome_is_stored_with_how_wrong_the_confidence_was(
    writer: AsyncConnection,
) -> None:
    [key] = await stored(writer, Metric, 1)

    assert await update_outcomes(writer, [outcome(key)]) == {key}

    expected = True, True, Decimal("0.5"), Decimal("0.3125"), NOW
    assert await values_of(writer, Metric, key, *OUTCOME) == expected


async def test_only_the_decisions_that_are_stored_are_matched(writer: AsyncConnection) -> None:
    keys = await stored(writer, Metric, 3)

    found = await update_outcomes(writer, [outcome(key) for key in (uuid4(), *keys[1:])])

    assert found == set(keys[1:])
    assert await values_of(writer, Metric, keys[0], "selection_validated") == (None,)


async def test_an_outcome_leaves_what_it_does_not_say(writer: AsyncConnection) -> None:
    [key] = await stored(writer, Metric, 1)
    await update_outcomes(writer, [outcome(key)])

    await update_outcomes(writer, [outcome(key, success=None, quality_score=None)])
    await update_outcomes(writer, [outcome(key, success=False, quality_score=None)])

    expected = True, False, Decimal("0.5"), Decimal("0.3125"), NOW
    assert await values_of(writer, Metric, key, *OUTCOME) == expected


@pytest.mark.parametrize(
    ("confidence", "quality"), [(None, Decimal("0.5")), (Decimal("0.5"), None)]
)
async def test_without_confidence_or_quality_nothing_is_known_of_the_error(
    writer: AsyncConnection, confidence: Decimal | None, quality: Decimal | None
) -> None:
    [key] = await stored(writer, Metric, 1, confidence_score=confidence)

    await update_outcomes(writer, [outcome(key, quality_score=quality)])

    found = await values_of(writer, Metric, key, "actual_quality_score", "prediction_error")
    assert found == (quality, None)


async def test_the_error_is_that_of_the_quality_as_it_is_stored(writer: AsyncConnection) -> None:
    [key] = await stored(writer, Metric, 1)

    await update_outcomes(writer, [outcome(key, quality_score=Decimal("0.49995"))])

    found = await values_of(writer, Metric, key, "actual_quality_score", "prediction_error")
    assert found == (Decimal("0.5"), Decimal("0.3125"))


@pytest.mark.parametrize("replayed", [NOW, LATER])
async def test_an_outcome_that_is_replayed_replaces_none_or_an_older_one(
    writer: AsyncConnection, replayed: datetime
) -> None:
    keys = await stored(writer, Metric, 2)
    await update_outcomes(writer, [outcome(keys[0], success=False)])

    changes = [outcome(key, validated_at=replayed, is_late=True) for key in keys]

    assert await update_outcomes(writer, changes) == set(keys)
    for key in keys:
        found = await values_of(writer, Metric, key, "actual_success", "validated_at")
        assert found == (True, replayed)


async def test_an_outcome_that_is_replayed_gives_way_to_a_newer_one_and_is_matched(
    writer: AsyncConnection,
) -> None:
    [key] = await stored(writer, Metric, 1)
    await update_outcomes(writer, [outcome(key)])
    replayed = outcome(key, success=False, validated_at=EARLIER, is_late=True)

    assert await update_outcomes(writer, [replayed]) == {key}

    assert await values_of(writer, Metric, key, "actual_success", "validated_at") == (True, NOW)


async def test_an_outcome_that_is_not_replayed_replaces_whatever_there_is(
    writer: AsyncConnection,
) -> None:
    [key] = await stored(writer, Metric, 1)
    await update_outcomes(writer, [outcome(key)])

    await update_outcomes(writer, [outcome(key, success=False, validated_at=EARLIER)])

    found = await values_of(writer, Metric, key, "actual_success", "validated_at")
    assert found == (False, EARLIER)


async def test_outcomes_of_one_decision_in_one_batch_are_stored_in_their_order(
    writer: AsyncConnection,
) -> None:
    keys = await stored(writer, Metric, 2)
    batch = [
        outcome(keys[0], success=False),
        outcome(keys[1]),
        outcome(keys[0], quality_score=Decimal("0.75")),
        outcome(keys[0], success=None, quality_score=None, validated_at=LATER),
    ]

    assert await update_outcomes(writer, batch) == set(keys)

    expected = True, True, Decimal("0.75"), Decimal("0.0625"), LATER
    assert await values_of(writer, Metric, keys[0], *OUTCOME) == expected


FEEDBACK = "feedback_provided", "feedback_type", "feedback_details"


async def test_feedback_is_stored_and_replaced_as_a_whole(writer: AsyncConnection) -> None:
    keys = await stored(writer, Metric, 2)
    first = [feedback(key, type="correction", details='{"instead": ["ü", null]}') for key in keys]
    assert await update_feedback(writer, [*first, feedback(uuid4())]) == set(keys)

    await update_feedback(writer, [feedback(keys[1])])

    kept = True, "correction", {"instead": ["ü", None]}
    assert await values_of(writer, Metric, keys[0], *FEEDBACK) == kept
    assert await values_of(writer, Metric, keys[1], *FEEDBACK) == (True, "positive", None)


@pytest.mark.parametrize(
    ("kind", "details", "rule"),
    [("x" * 51, None, "too long"), ("positive", "{", "invalid text representation")],
)
async def test_feedback_that_does_not_fit_is_refused_and_not_cut(
    writer: AsyncConnection, kind: str, details: str | None, rule: str
) -> None:
    [key] = await stored(writer, Metric, 1)

    with pytest.raises(InvalidDataError, match=rule):
        await update_feedback(writer, [feedback(key, type=kind, details=details)])


async def test_a_run_is_completed_with_all_that_is_known_of_its_end(
    writer: AsyncConnection,
) -> None:
    keys = await stored(writer, Event, 3)
    changes = [completion(key) for key in (*keys[:2], uuid4())]

    assert await complete_runs(writer, changes) == set(keys[:2])

    for change in changes[:2]:
        found = await values_of(writer, Event, change.id, *Completion._fields)
        assert found == tuple(change)
    assert await completed(writer, keys) == set(keys[:2])


async def test_a_completion_leaves_the_durations_that_were_known_at_the_start(
    writer: AsyncConnection,
) -> None:
    durations: dict[str, Any] = {"transformation_duration_ms": 11, "initialization_duration_ms": 12}
    [key] = await stored(writer, Event, 1, **durations)
    unknown = dict.fromkeys(durations)

    await complete_runs(writer, [completion(key, **unknown)])

    assert await values_of(writer, Event, key, *durations) == tuple(durations.values())


async def test_a_run_that_is_completed_again_has_nothing_left_of_its_first_end(
    writer: AsyncConnection,
) -> None:
    [key] = await stored(writer, Event, 1)
    await complete_runs(writer, [completion(key)])

    again = completion(key, success=True, error_type=None, error_message=None)
    await complete_runs(writer, [again])

    assert await values_of(writer, Event, key, *Completion._fields) == tuple(again)


async def test_all_of_it_goes_to_the_schema_of_choice(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    settings = agentobs_empty_database.model_copy(update={"schema_name": 'The "Host"'})
    await migrations.upgrade(settings=settings)
    engine = create_engine(settings)
    async with engine.connect() as connection:
        for count in (1, 200):
            [event, *_] = await stored(connection, Event, count)
            [metric, *_] = await stored(connection, Metric, count)
        assert await existing(connection, Event, [event]) == {event}
        assert await complete_runs(connection, [completion(event)]) == {event}
        assert await completed(connection, [event]) == {event}
        assert await update_outcomes(connection, [outcome(metric)]) == {metric}
        assert await update_feedback(connection, [feedback(metric)]) == {metric}
        for table in (EVENTS, METRICS):
            counted = text(f'SELECT count(*) FROM "The ""Host""".{table}')
            assert await connection.scalar(counted) == 201
    await engine.dispose()
