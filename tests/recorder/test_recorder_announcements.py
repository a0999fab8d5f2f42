from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.held_up import held_up
from support.pools import eventually
from support.recorders import events, strict_recorder

from agentobs import Transformation
from agentobs.errors import RecorderClosedError

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder
    from agentobs.recorder import Run

NOON = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)


class WrongKeyError(Exception):
    """An error of a host."""


async def rows_by_agent(database: DatabaseSettings) -> dict[str, dict[str, Any]]:
    return {row["target_agent"]: row for row in await events(database)}


async def only_row(recorder: Recorder, database: DatabaseSettings) -> dict[str, Any]:
    await recorder.abarrier()
    [row] = await events(database)
    return row


async def announced(database: DatabaseSettings, *runs: Run) -> None:
    """Wait until the rows of runs are stored."""

    async def are_stored() -> bool:
        return {run.id for run in runs} <= {row["id"] for row in await events(database)}

    await eventually(are_stored)


async def test_a_run_that_goes_on_for_long_is_seen_and_then_completed_in_its_row(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder:
        with (
            suppress(WrongKeyError),
            recorder.transformation(target_agent="agent-debug", context_snapshot={"a": 1}) as run,
        ):
            await announced(agentobs_database, run)
            [seen] = await events(agentobs_database)
            assert (seen["event_type"], seen["success"]) == ("transformation_start", None)
            assert (seen["completed_at"], seen["total_execution_duration_ms"]) == (None, None)
            assert recorder.statistics().written == {}
            run.transformed()
            run.quality_score = 0.25
            raise WrongKeyError("no such key")
        await recorder.abarrier()

        [row] = await events(agentobs_database)
        assert recorder.statistics().written == {"transformation": 1}
    assert (row["id"], row["event_type"]) == (run.id, "transformation_failed")
    assert (row["error_type"], row["error_message"]) == ("WrongKeyError", "no such key")
    assert row["quality_score"] == Decimal("0.25")
    assert row["transformation_duration_ms"] is not None
    assert row["completed_at"] >= row["started_at"]
    assert row["context_snapshot"] == {"a": 1}


async def test_the_ancestors_of_a_row_are_seen_with_it_over_all_levels(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with (
        recorder.transformation(target_agent="top") as top,
        recorder.transformation(target_agent="middle") as middle,
    ):
        with recorder.transformation(target_agent="done"):
            pass
        await recorder.abarrier()

        rows = await rows_by_agent(agentobs_database)
        kinds = {agent: row["event_type"] for agent, row in rows.items()}
        assert kinds == {
            "top": "transformation_start",
            "middle": "transformation_start",
            "done": "transformation_complete",
        }
        assert rows["done"]["parent_event_id"] == middle.id
        assert rows["middle"]["parent_event_id"] == top.id
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert {row["event_type"] for row in rows.values()} == {"transformation_complete"}
    assert recorder.statistics().written == {"transformation": 3}


async def test_a_run_that_ends_while_its_announcement_is_on_the_way_is_completed(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder:
        async with held_up(agentobs_database) as pause:
            with recorder.transformation(target_agent="agent-debug"):
                await pause.writer_waits()
        row = await only_row(recorder, agentobs_database)

    assert (row["event_type"], row["success"]) == ("transformation_complete", True)
    assert recorder.statistics().written == {"transformation": 1}


async def test_a_run_that_is_open_when_the_recorder_is_closed_stays_visible(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    run = recorder.transformation(target_agent="agent-debug")
    run.__enter__()

    assert recorder.close().is_complete
    with pytest.raises(RecorderClosedError):
        run.__exit__(None, None, None)

    [row] = await events(agentobs_database)
    assert (row["id"], row["event_type"]) == (run.id, "transformation_start")


async def test_a_run_that_ends_after_a_restart_completes_its_row(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    recorder = strict_recorder(agentobs_database, tmp_path).start()
    with recorder.transformation(target_agent="agent-debug"):
        recorder.close()
        recorder.start()
    recorder.close()

    [row] = await events(agentobs_database)
    assert row["event_type"] == "transformation_complete"
    assert recorder.statistics().written == {"transformation": 1}


async def test_what_was_changed_of_a_run_is_counted_once_though_it_was_announced(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder:
        with recorder.transformation(target_agent="a\x00", context_snapshot={"b": "\x00"}) as run:
            await announced(agentobs_database, run)
        await recorder.abarrier()

        assert recorder.statistics().sanitised == 2


async def test_the_end_of_a_run_is_taken_though_there_is_no_room_if_its_start_is_on_the_way(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"announce_after": 0, "buffer_rows": 1}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        async with held_up(agentobs_database) as pause:
            with recorder.transformation(target_agent="agent-debug"):
                await pause.writer_waits()
                recorder.routing_decision()
                assert recorder.record(Transformation(target_agent="no room")) is None
        row = await only_row(recorder, agentobs_database)

    assert row["event_type"] == "transformation_complete"
