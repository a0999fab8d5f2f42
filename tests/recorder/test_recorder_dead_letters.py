from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from support.held_up import held_up
from support.models import CANARY
from support.pools import eventually
from support.recorders import decisions, events, strict_recorder
from support.shell import connect

from agentobs import Transformation
from agentobs.recorder.dead_letters.writing import read_dead_letters

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"

CHANGES_SCHEMA = True

DEFINITION_KEY = "agent_transformation_events_agent_definition_id_fkey"


async def execute(database: DatabaseSettings, *statements: str) -> None:
    async with connect(database) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def add_check(database: DatabaseSettings, table: str, condition: str) -> None:
    """Add a constraint of the host's own."""
    await execute(database, f"ALTER TABLE {table} ADD CONSTRAINT host_check CHECK ({condition})")


def letters_in(folder: Path) -> list[dict[str, Any]]:
    return list(read_dead_letters(folder / "dead-letters"))


def finished(recorder: Recorder, **values: Any) -> UUID | None:
    return recorder.record(Transformation(**({"target_agent": "agent", "success": True} | values)))


async def test_a_row_that_is_refused_is_kept_with_the_reason_and_the_rest_is_written(
    recorder: Recorder, agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    unknown = uuid4()
    good = [finished(recorder) for _ in range(5)]
    bad = finished(recorder, agent_definition_id=unknown, context_snapshot={"a": 1}, reason="ü")
    good += [finished(recorder) for _ in range(5)]
    await recorder.abarrier()

    assert [row["id"] for row in await events(agentobs_database)] == good
    [letter] = letters_in(tmp_path)
    assert (letter["kind"], letter["id"]) == ("transformation", str(bad))
    assert (letter["sqlstate"], letter["constraint"]) == ("23503", DEFINITION_KEY)
    assert "agent_definition_id" in letter["reason"]
    assert letter["row"]["agent_definition_id"] == str(unknown)
    assert letter["row"]["context_snapshot"] == '{"a":1}'
    assert letter["row"]["transformation_reason"] == "ü"
    statistics = recorder.statistics()
    assert statistics.dead_lettered == {"transformation": 1}
    assert statistics.written == {"transformation": 10}
    assert (statistics.pending, statistics.retried) == (0, 0)


async def test_many_refused_rows_in_one_batch_keep_no_other_from_being_written(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await add_check(agentobs_database, METRICS, "cache_age_seconds % 7 <> 0")
    with strict_recorder(agentobs_database, tmp_path, flush_interval=3600) as recorder:
        for number in range(200):
            decision = recorder.routing_decision(cache_age_seconds=number)
            recorder.outcome(decision, success=True)

    ages = {row["cache_age_seconds"] for row in await decisions(agentobs_database)}
    assert ages == {number for number in range(200) if number % 7}
    letters = letters_in(tmp_path)
    assert {each["row"]["cache_age_seconds"] for each in letters} == set(range(0, 200, 7))
    assert {each["constraint"] for each in letters} == {"host_check"}
    assert {each["row"]["actual_success"] for each in letters} == {True}
    refused = len(range(0, 200, 7))
    statistics = recorder.statistics()
    assert statistics.dead_lettered == {"decision": refused, "outcome": refused}
    assert statistics.written == {"decision": 200 - refused, "outcome": 200 - refused}


async def test_the_words_of_a_hosts_trigger_are_not_told(
    recorder: Recorder,
    agentobs_database: DatabaseSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await execute(
        agentobs_database,
        "CREATE FUNCTION host_rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.cache_key IS NOT NULL THEN RAISE EXCEPTION 'no %', NEW.cache_key; END IF; "
        "RETURN NEW; END $$",
        f"CREATE TRIGGER host_rule BEFORE INSERT ON {METRICS} "
        "FOR EACH ROW EXECUTE FUNCTION host_rule()",
    )
    for cache_key in (None, CANARY, None):
        recorder.routing_decision(cache_key=cache_key)
    await recorder.abarrier()

    assert len(await decisions(agentobs_database)) == 2
    [letter] = letters_in(tmp_path)
    assert letter["sqlstate"] == "P0001"
    assert letter["row"]["cache_key"] == CANARY
    assert CANARY not in letter["reason"] + caplog.text


@pytest.mark.parametrize("is_stored", [False, True])
async def test_an_outcome_that_is_refused_is_kept_and_the_others_are_noted(
    agentobs_database: DatabaseSettings, tmp_path: Path, is_stored: bool
) -> None:
    await add_check(agentobs_database, METRICS, "feedback_type <> 'rude'")
    with strict_recorder(agentobs_database, tmp_path, flush_interval=3600) as recorder:
        made = [recorder.routing_decision() for _ in range(5)]
        if is_stored:
            await recorder.abarrier()
        for number, decision in enumerate(made):
            recorder.feedback(decision, "rude" if number == 2 else "positive")

    rows = {row["id"]: row["feedback_type"] for row in await decisions(agentobs_database)}
    assert len(rows) == (5 if is_stored else 4)
    assert rows.get(made[2].id) is None
    assert [*rows.values()].count("positive") == 4
    [letter] = letters_in(tmp_path)
    assert letter["kind"] == ("feedback" if is_stored else "decision")
    assert letter["row"]["feedback_type"] == "rude"
    assert recorder.statistics().dead_lettered["feedback"] == 1
    assert recorder.statistics().pending == 0


async def test_the_end_of_a_run_that_is_refused_is_kept_and_its_start_stays(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await add_check(agentobs_database, EVENTS, "error_type <> 'Rude'")
    with strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder:
        with recorder.transformation(target_agent="agent") as run:

            async def is_announced() -> bool:
                return bool(await events(agentobs_database))

            await eventually(is_announced)
            run.fail("Rude")
        with recorder.transformation(target_agent="other"):
            pass

    rows = {row["target_agent"]: row["event_type"] for row in await events(agentobs_database)}
    assert rows == {"agent": "transformation_start", "other": "transformation_complete"}
    [letter] = letters_in(tmp_path)
    assert (letter["id"], letter["row"]["error_type"]) == (str(run.id), "Rude")
    assert recorder.statistics().dead_lettered == {"transformation": 1}


async def test_the_start_of_a_run_that_is_refused_is_tried_once(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    async def is_refused() -> bool:
        return bool(letters_in(tmp_path))

    with (
        strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder,
        recorder.transformation(target_agent="agent", agent_definition_id=uuid4()),
    ):
        await eventually(is_refused)
        for _ in range(5):
            recorder.routing_decision()
            await recorder.abarrier()
        [letter] = letters_in(tmp_path)
        assert letter["row"]["event_type"] == "transformation_start"

    assert await events(agentobs_database) == []
    [_, letter] = letters_in(tmp_path)
    assert letter["row"]["event_type"] == "transformation_complete"
    assert recorder.statistics().dead_lettered == {"transformation": 1}
    assert recorder.statistics().accepted["transformation"] == 1


async def test_the_children_of_a_run_that_is_refused_are_written_without_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"flush_interval": 3600, "parent_wait": 0.1}
    with (
        strict_recorder(agentobs_database, tmp_path, **options) as recorder,
        recorder.transformation(target_agent="refused", agent_definition_id=uuid4()),
        recorder.transformation(target_agent="child") as child,
        recorder.transformation(target_agent="grandchild"),
    ):
        pass

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert rows.keys() == {"child", "grandchild"}
    assert rows["child"]["parent_event_id"] is None
    assert rows["grandchild"]["parent_event_id"] == child.id
    statistics = recorder.statistics()
    assert statistics.orphaned == 1
    assert statistics.dead_lettered == {"transformation": 1}
    assert statistics.written == {"transformation": 2}


@pytest.mark.parametrize("what", ["refused", "unmatched"])
async def test_what_can_not_be_kept_either_is_counted_as_lost(
    agentobs_database: DatabaseSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    (tmp_path / "dead-letters").touch()
    with strict_recorder(agentobs_database, tmp_path, outcome_wait=0) as recorder:
        if what == "refused":
            finished(recorder, agent_definition_id=uuid4(), reason=CANARY)
        else:
            recorder.outcome(uuid4(), success=True)
        finished(recorder)
        await recorder.abarrier()
        statistics = recorder.statistics()

    lost = "transformation" if what == "refused" else "outcome"
    assert statistics.lost == {lost: 1}
    assert statistics.dead_lettered == statistics.unmatched == {}
    assert statistics.pending == 0
    assert statistics.completeness == 0.5
    assert "lost" in caplog.text
    assert CANARY not in caplog.text


async def test_what_is_left_at_the_end_and_can_not_be_kept_is_counted_as_lost(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    (tmp_path / "dead-letters").touch()
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        recorder.routing_decision()
        await pause.writer_waits()
        report = await recorder.aclose(0)

    assert report.left == {"decision": 1}
    assert recorder.statistics().lost == {"decision": 1}
    assert recorder.statistics().abandoned == {}
    assert report.dead_letters is None
