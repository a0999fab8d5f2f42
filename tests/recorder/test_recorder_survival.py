"""What must not stop the rows that come after it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from support.pools import eventually
from support.recorders import decisions, events, strict_recorder
from support.shell import connect, connect_in_transaction

from agentobs import RoutingDecision
from agentobs.errors import ConflictError, InvalidValueError
from agentobs.recorder.dead_letters.writing import read_dead_letters
from agentobs.recorder.entries import Entry, Kind
from agentobs.recorder.running import target_of
from agentobs.recorder.writing.delivery import Delivered, Delivery
from agentobs.recorder.writing.statements import Feedback, Outcome, update_feedback, update_outcomes
from agentobs.settings import DatabaseSettings

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import Recorder
    from agentobs.recorder import Run

CHANGES_SCHEMA = True


@pytest.mark.parametrize("delivery", ["drop", "spool"])
async def test_a_record_that_was_not_checked_is_a_dead_letter_and_the_next_one_is_written(
    agentobs_database: DatabaseSettings, tmp_path: Path, delivery: str
) -> None:
    unchecked = RoutingDecision(selected_agent="a").model_copy(update={"selected_agent": 5})
    with strict_recorder(agentobs_database, tmp_path, delivery=delivery) as recorder:
        recorder.routing_decision(unchecked)
        recorder.routing_decision(selected_agent="next")

    assert [row["selected_agent"] for row in await decisions(agentobs_database)] == ["next"]
    [letter] = read_dead_letters(tmp_path / "dead-letters")
    assert letter["reason"] == "its values can't be made: AttributeError"
    assert recorder.statistics().dead_lettered == {"decision": 1}


def test_a_record_that_no_spool_can_hold_is_refused_where_it_was_made(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    unchecked = RoutingDecision(selected_agent="a").model_copy(update={"selected_agent": object()})

    with (
        strict_recorder(agentobs_database, tmp_path, delivery="spool") as recorder,
        pytest.raises(InvalidValueError),
    ):
        recorder.routing_decision(unchecked)


async def test_a_row_that_somebody_has_locked_holds_up_no_other(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    locked = recorder.routing_decision(selected_agent="locked")
    recorder.barrier()
    async with connect_in_transaction(agentobs_database) as holder:
        [row] = await decisions(agentobs_database)
        await update_outcomes(holder, [Outcome(locked.id, None, None, row["measured_at"], False)])
        recorder.outcome(locked, success=True)
        other = recorder.routing_decision(selected_agent="other")
        await eventually(lambda: _is_stored(agentobs_database, other.id))
        await holder.rollback()
    await recorder.abarrier(30)

    rows = {row["id"]: row for row in await decisions(agentobs_database)}
    assert rows[locked.id]["actual_success"] is True


async def test_feedback_on_a_locked_row_replaces_an_older_one_when_it_is_free(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision(selected_agent="a")
    recorder.feedback(decision, "negative")
    recorder.barrier()
    async with connect_in_transaction(agentobs_database) as holder:
        await update_feedback(holder, [Feedback(decision.id, "negative", None)])
        recorder.feedback(decision, "positive")
        other = recorder.routing_decision(selected_agent="b")
        await eventually(lambda: _is_stored(agentobs_database, other.id))
        await holder.rollback()
    await recorder.abarrier(30)

    rows = {row["id"]: row for row in await decisions(agentobs_database)}
    assert rows[decision.id]["feedback_type"] == "positive"


async def test_an_outcome_that_a_resent_decision_brings_is_not_lost_to_a_lock(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision(selected_agent="a")
    recorder.barrier()
    [row] = await decisions(agentobs_database)
    values = {"id": decision.id, "metric_type": "a", "measured_at": row["measured_at"]}
    resent = Entry(Kind.DECISION, decision.id, values)
    outcome = {"actual_success": True, "validated_at": row["measured_at"]}
    resent.merge(Entry(Kind.OUTCOME, decision.id, outcome))
    delivery, done = Delivery(agentobs_database), Delivered()
    async with connect_in_transaction(agentobs_database) as holder:
        await update_feedback(holder, [Feedback(decision.id, "negative", None)])
        with pytest.raises(ConflictError):
            await delivery.insert_metrics([resent], done, is_doubtful=True)
        assert done.written == []
        await holder.rollback()
    await delivery.insert_metrics([resent], done, is_doubtful=True)
    await delivery.close()

    assert done.written == [resent]
    [row] = await decisions(agentobs_database)
    assert row["actual_success"] is True


async def _is_stored(database: DatabaseSettings, key: object) -> bool:
    return key in [row["id"] for row in await decisions(database)]


async def test_a_batch_that_takes_too_long_is_sent_in_halves(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    async with connect(agentobs_database) as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION takes_its_time() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER takes_its_time BEFORE INSERT ON router_performance_metrics"
            " FOR EACH ROW EXECUTE FUNCTION takes_its_time()"
        )
    slow = agentobs_database.model_copy(update={"command_timeout": 1.0})
    with strict_recorder(slow, tmp_path, flush_interval=3600.0) as recorder:
        for _ in range(40):
            recorder.routing_decision(selected_agent="slow")

    assert len(await decisions(agentobs_database)) == 40


async def test_a_child_that_is_forked_within_a_run_does_not_end_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="forks") as run:
        _leave_in_a_child(recorder, run)
        run.quality_score = 0.9
    recorder.barrier()

    [row] = await events(agentobs_database)
    assert row["success"] is True


def _leave_in_a_child(recorder: Recorder, run: Run) -> None:
    if not (child := os.fork()):
        run.__exit__(SystemExit, SystemExit(), None)
        recorder.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_fields_beside_a_record_are_refused(recorder: Recorder) -> None:
    with pytest.raises(InvalidValueError, match="strategy stands beside a record"):
        recorder.routing_decision(RoutingDecision(), strategy="fuzzy")


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://somebody@DB.example.:5432/agents",
        "postgresql://db.example/agents?application_name=router",
    ],
)
def test_the_same_database_is_known_however_its_address_is_spelt(other: str) -> None:
    url = "postgresql://me:secret@db.example/agents"
    assert target_of(DatabaseSettings(database_url=url)) == target_of(
        DatabaseSettings(database_url=other)
    )
    assert "secret" not in target_of(DatabaseSettings(database_url=url))


def test_another_schema_is_another_place() -> None:
    url = "postgresql://me@db.example/agents"
    assert target_of(DatabaseSettings(database_url=url)) != target_of(
        DatabaseSettings(database_url=url, schema_name=f"s{uuid4().hex[:8]}")
    )
