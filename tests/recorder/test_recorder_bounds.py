from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.pools import eventually
from support.recorders import decisions, events, strict_recorder

from agentobs import Transformation
from agentobs.recorder.prometheus import RecorderCollector

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder

FOR_EVER = 600


def record_orphans(recorder: Recorder, number: int, size: int = 0) -> None:
    """Record rows whose parent never comes."""
    for _ in range(number):
        recorder.record(
            Transformation(
                target_agent="orphan", parent_event_id=uuid4(), success=True, reason="x" * size
            )
        )


async def holds(recorder: Recorder, rows: int) -> None:
    async def is_held() -> bool:
        return recorder.statistics().held_rows == rows

    await eventually(is_held)


async def test_what_waits_for_other_processes_is_told_until_it_is_settled(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"parent_wait": FOR_EVER, "outcome_wait": FOR_EVER}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        record_orphans(recorder, 3, size=1_000)
        recorder.outcome(uuid4(), success=True)
        recorder.outcome(uuid4(), success=False)
        await holds(recorder, 5)
        held_bytes = recorder.statistics().held_bytes
        registry = CollectorRegistry()
        registry.register(RecorderCollector(recorder))
        shown = generate_latest(registry).decode()

    assert 3 * 1_000 < held_bytes < 20_000
    assert "agentobs_recorder_held_rows 5.0" in shown
    assert f"agentobs_recorder_held_bytes {held_bytes}.0" in shown
    assert (recorder.statistics().held_rows, recorder.statistics().held_bytes) == (0, 0)


async def test_children_that_wait_are_bounded_by_bytes(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"parent_wait": FOR_EVER, "buffer_bytes": 40_000, "flush_rows": 2}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        record_orphans(recorder, 2, size=5_000)
        await holds(recorder, 2)
        record_orphans(recorder, 2, size=5_000)

        async def are_written() -> bool:
            return len(await events(agentobs_database)) == 1

        await eventually(are_written)
        statistics = recorder.statistics()

    # The oldest is given up, for then the others fit.
    assert (statistics.orphaned, statistics.held_rows) == (1, 3)


async def test_outcomes_and_feedback_that_wait_are_bounded_by_bytes(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"outcome_wait": FOR_EVER, "buffer_bytes": 40_000, "flush_rows": 2}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        for _ in range(4):
            recorder.feedback(uuid4(), "positive", {"text": "x" * 5_000})

        async def are_given_up() -> bool:
            return recorder.statistics().unmatched.get("feedback", 0) >= 1

        await eventually(are_given_up)


async def test_what_is_merged_into_a_row_that_waits_counts_with_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    key = uuid4()
    options = {"outcome_wait": FOR_EVER, "buffer_bytes": 40_000}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        recorder.feedback(key, "positive", {"text": "x" * 5_000})
        await holds(recorder, 1)
        for _ in range(3):
            recorder.feedback(key, "positive", {"text": "x" * 5_000})

        async def is_given_up() -> bool:
            return recorder.statistics().unmatched.get("feedback") == 4

        await eventually(is_given_up)


@pytest.mark.parametrize("announce_after", [0, 600])
async def test_the_runs_that_go_on_are_told_whether_or_not_their_start_is_written(
    agentobs_database: DatabaseSettings, tmp_path: Path, announce_after: float
) -> None:
    with strict_recorder(agentobs_database, tmp_path, announce_after=announce_after) as recorder:
        with (
            recorder.transformation(target_agent="outer"),
            recorder.transformation(target_agent="inner"),
        ):

            async def is_settled() -> bool:
                return bool(await events(agentobs_database)) or announce_after > 0

            await eventually(is_settled)
            during = recorder.statistics().open_runs
        recorder.routing_decision()
        await recorder.abarrier()
        after = recorder.statistics().open_runs

    assert (during, after) == (2, 0)
    assert len(await decisions(agentobs_database)) == 1


async def test_a_run_whose_start_is_refused_is_open_until_it_ends(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, announce_after=0) as recorder:
        with recorder.transformation(target_agent="agent", agent_definition_id=uuid4()):

            async def is_refused() -> bool:
                return any((tmp_path / "dead-letters").glob("*"))

            await eventually(is_refused)
            assert recorder.statistics().open_runs == 1
        assert recorder.statistics().open_runs == 0
