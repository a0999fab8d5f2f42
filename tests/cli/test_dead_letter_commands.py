from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import text
from support.held_up import held_up
from support.recorders import decisions, events, strict_recorder
from support.shell import agentobs, connect, connect_in_transaction

from agentobs import Transformation
from agentobs.recorder.dead_letters.files import alone_in
from agentobs.recorder.dead_letters.resending import resend
from agentobs.recorder.dead_letters.writing import DeadLetter, DeadLetters, read_dead_letters

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"
NOWHERE = "postgresql://postgres@127.0.0.1:1/nowhere"


def replay(
    database: DatabaseSettings, folder: Path, *files: Path
) -> subprocess.CompletedProcess[str]:
    names = [str(file) for file in files]
    return agentobs("dead-letters", "replay", *names, "--folder", str(folder), settings=database)


def status(folder: Path) -> str:
    return agentobs("dead-letters", "status", "--folder", str(folder)).stdout


def letters_in(folder: Path) -> list[dict[str, Any]]:
    return list(read_dead_letters(folder / "dead-letters"))


def files_in(folder: Path) -> list[Path]:
    # The folder is made with the first letter.
    place = folder / "dead-letters"
    return sorted(place.iterdir()) if place.is_dir() else []


async def execute(database: DatabaseSettings, *statements: str) -> None:
    async with connect(database) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def add_check(database: DatabaseSettings, table: str, condition: str) -> None:
    await execute(database, f"ALTER TABLE {table} ADD CONSTRAINT host_check CHECK ({condition})")


async def drop_check(database: DatabaseSettings, table: str) -> None:
    await execute(database, f"ALTER TABLE {table} DROP CONSTRAINT host_check")


def finished(recorder: Recorder, **values: Any) -> UUID | None:
    return recorder.record(Transformation(**({"target_agent": "agent", "success": True} | values)))


async def test_rows_that_were_refused_are_sent_again_when_the_cause_is_gone(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await add_check(agentobs_database, EVENTS, "target_agent <> 'rude'")
    await add_check(agentobs_database, METRICS, "selected_agent <> 'rude'")
    full = {
        "context_snapshot": {"a": [1, {"b": "ü"}]},
        "reason": "because\n",
        "quality_score": 0.25,
        "total_execution_duration_ms": 7,
        "user_request": "do",
    }
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        run = finished(recorder, target_agent="rude", **full)
        good = finished(recorder, target_agent="good", **full)
        decision = recorder.routing_decision(
            selected_agent="rude",
            confidence_score=0.5,
            alternatives=[{"agent": "other", "confidence": 0.1, "reason": "names no test"}],
            timings_us={"total": 40},
            context={"a": 1},
        )
        recorder.outcome(decision, success=True, quality_score=0.25)
    await drop_check(agentobs_database, EVENTS)
    await drop_check(agentobs_database, METRICS)

    shown = status(tmp_path)
    again = replay(agentobs_database, tmp_path)

    assert "letters: 2" in shown
    assert "decision" in shown
    assert "host_check" in shown
    assert again.stdout == "sent: 2 letters, left: 0\n"
    assert again.returncode == 0
    assert files_in(tmp_path) == []
    assert status(tmp_path).splitlines()[1:] == ["no dead letters"]
    rows = {row["id"]: row for row in await events(agentobs_database)}
    own = {"id", "target_agent", "correlation_id", "started_at", "completed_at"}
    assert run is not None
    assert good is not None
    assert {k: v for k, v in rows[run].items() if k not in own} == {
        k: v for k, v in rows[good].items() if k not in own
    }
    [row] = await decisions(agentobs_database)
    assert (row["id"], row["actual_success"], float(row["prediction_error"])) == (
        decision.id,
        True,
        0.25,
    )
    assert row["alternative_agents"][0]["reason"] == "names no test"


async def test_what_is_refused_again_stays_with_its_new_reason(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    await add_check(agentobs_database, EVENTS, "target_agent <> 'rude'")
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        finished(recorder, target_agent="rude", agent_definition_id=uuid4())
        finished(recorder, target_agent="rude")
    [before, _] = letters_in(tmp_path)
    await drop_check(agentobs_database, EVENTS)

    again = replay(agentobs_database, tmp_path)

    assert again.returncode == 1
    assert "sent: 1 letters, left: 1" in again.stdout
    assert "agent_definition_id_fkey" in again.stdout
    [letter] = letters_in(tmp_path)
    assert before["constraint"] == "host_check"
    assert letter["constraint"].endswith("agent_definition_id_fkey")
    assert letter["sqlstate"] == "23503"
    assert (letter["at"], letter["row"]) == (before["at"], before["row"])
    [file] = files_in(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_letter_that_is_stored_already_is_not_stored_twice(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        decision = recorder.routing_decision(selected_agent="agent", confidence_score=0.5)
        await pause.writer_waits()
        recorder.outcome(decision, success=True)
        finished(recorder)
        await recorder.aclose(0)
    [file] = files_in(tmp_path)
    content = file.read_bytes()

    first = replay(agentobs_database, tmp_path)
    file.write_bytes(content)
    second = replay(agentobs_database, tmp_path, file)

    assert first.stdout == second.stdout == "sent: 3 letters, left: 0\n"
    assert len(await events(agentobs_database)) == 1
    [row] = await decisions(agentobs_database)
    assert row["actual_success"] is True


async def test_letters_that_need_each_other_are_sent_in_whatever_order_they_lie(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    async with held_up(agentobs_database) as pause:
        decision = recorder.routing_decision()
        await pause.writer_waits()
        with recorder.transformation(target_agent="outer") as outer:
            finished(recorder, target_agent="inner")
        recorder.feedback(decision, "positive", {"by": "x"})
        await recorder.aclose(0)
    [file] = files_in(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.unlink()
    order = sorted(lines, key=lambda line: b'"outer"' in line or b'"decision"' in line)
    for number, line in enumerate(order):
        file.with_name(f"{number}.jsonl").write_bytes(line)

    again = replay(agentobs_database, tmp_path)

    assert again.stdout == "sent: 4 letters, left: 0\n"
    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert rows["inner"]["parent_event_id"] == outer.id
    [row] = await decisions(agentobs_database)
    assert (row["feedback_type"], row["feedback_details"]) == ("positive", {"by": "x"})


async def test_the_start_and_the_end_of_a_run_become_one_row(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder,
        recorder.transformation(target_agent="agent", agent_definition_id=uuid4()) as run,
    ):
        recorder.routing_decision()
        await recorder.abarrier()
    [start, end] = letters_in(tmp_path)
    [file] = files_in(tmp_path)
    for letter in (start, end):
        letter["row"]["agent_definition_id"] = None
    file.write_text(f"{json.dumps(end)}\n{json.dumps(start)}\n")

    again = replay(agentobs_database, tmp_path)

    assert again.stdout == "sent: 2 letters, left: 0\n"
    [row] = await events(agentobs_database)
    assert (row["id"], row["event_type"]) == (run.id, "transformation_complete")


async def test_what_never_came_stays_and_says_so(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, outcome_wait=0) as recorder:
        recorder.outcome(uuid4(), success=True)

    again = replay(agentobs_database, tmp_path)

    assert again.returncode == 1
    assert "no such decision was ever stored" in again.stdout


async def test_letters_without_what_is_needed_are_left_as_they_are(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    letters = DeadLetters(tmp_path / "dead-letters")
    key = uuid4()
    as_text = {"id": key, "measured_at": "2026-01-01", "cache_age_seconds": 2**70}
    letters.write([DeadLetter("decision", key, "out of range", as_text)])
    letters.write([DeadLetter("decision", key, "can't be made", {"id": key})])
    letters.write([DeadLetter("event", key, "of another version", {"id": key, "a": 1})])
    assert letters.path is not None
    with letters.path.open("ab") as file:
        file.write(b'{"damaged\n"half a li')
    content = letters.path.read_bytes()

    again = replay(agentobs_database, tmp_path)

    assert letters.path.read_bytes() == content
    assert again.returncode == 1
    assert "kept as text only" in again.stdout
    assert "values are not kept" in again.stdout
    assert again.stdout.count("is no dead letter") == 1
    assert "left: 4" in again.stdout


async def test_feedback_of_a_row_that_is_locked_stays_until_the_next_time(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        decision = recorder.routing_decision()
    row = {"id": decision.id, "feedback_provided": True, "feedback_type": "positive"}
    DeadLetters(tmp_path / "dead-letters").write(
        [DeadLetter("feedback", decision.id, "refused", row)]
    )
    async with connect_in_transaction(agentobs_database) as other:
        await other.execute(text(f"SELECT FROM {METRICS} FOR UPDATE"))
        during = replay(agentobs_database, tmp_path)
    after = replay(agentobs_database, tmp_path)

    assert "locked its row" in during.stdout
    assert during.returncode == 1
    assert after.stdout == "sent: 1 letters, left: 0\n"


def test_without_a_database_nothing_leaves_its_file(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead-letters")
    key = uuid4()
    letters.write([DeadLetter("feedback", key, "refused", {"id": key, "feedback_type": "x"})])
    assert letters.path is not None
    content = letters.path.read_bytes()

    run = agentobs(
        "dead-letters", "replay", "--folder", str(tmp_path), AGENTOBS_DATABASE_URL=NOWHERE
    )

    assert run.returncode == 1
    assert run.stderr.startswith("agentobs: can't connect to")
    assert files_in(tmp_path) == [letters.path]
    assert letters.path.read_bytes() == content


def test_two_processes_do_not_send_the_same_letters(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    letters = DeadLetters(tmp_path / "dead-letters")
    key = uuid4()
    letters.write([DeadLetter("feedback", key, "refused", {"id": key, "feedback_type": "x"})])

    with alone_in(tmp_path / "dead-letters"):
        run = replay(agentobs_database, tmp_path)

    assert run.returncode == 1
    assert "another process sends these letters: wait for it" in run.stderr
    assert len(letters_in(tmp_path)) == 1


def test_a_file_that_is_not_there_is_an_error_that_names_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    run = replay(agentobs_database, tmp_path, tmp_path / "gone.jsonl")

    assert run.returncode == 2
    # The message is broken into the lines of a box.
    assert "gone.jsonl" in "".join(char for char in run.stderr if char not in "│ \n")


async def test_a_recorder_that_goes_on_to_append_loses_no_letter(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        keys = [recorder.routing_decision().id for _ in range(200)]
    await execute(agentobs_database, f"TRUNCATE {METRICS}")
    letters, is_over = DeadLetters(tmp_path / "dead-letters"), threading.Event()

    def append() -> None:
        for key in keys:
            row = {"id": key, "metric_type": "routing", "measured_at": "2026-11-01T00:00:00+00:00"}
            letters.write([DeadLetter("decision", key, "refused", row)])
        is_over.set()

    host = threading.Thread(target=append)
    host.start()
    sent = 0
    while True:
        was_over = is_over.is_set()
        result = await resend(files_in(tmp_path) if letters.path else [], agentobs_database)
        sent += result.sent.total()
        assert result.left == {}
        if was_over:
            break
    host.join()

    assert sent == len(keys)
    assert {row["id"] for row in await decisions(agentobs_database)} == set(keys)
    assert files_in(tmp_path) == []
