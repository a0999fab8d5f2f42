"""A recorder behind a PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support.pgbouncer import needs_pgbouncer, pgbouncer
from support.recorders import decisions, events, strict_recorder

from agentobs.recorder.dead_letters.writing import read_dead_letters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from agentobs import DatabaseSettings, Recorder

# By INSERT, and by COPY.
FEW, MANY = 3, 300

CHANGES_SCHEMA = True

RECORDERS = 4

pytestmark = needs_pgbouncer


@pytest.fixture
def pooled(agentobs_server: URL, agentobs_database: DatabaseSettings) -> Iterator[DatabaseSettings]:
    """Yield settings of a pooler whose many clients share two backends."""
    with pgbouncer(agentobs_server, agentobs_database, mode="transaction", backends=2) as found:
        yield found.model_copy(update={"pooler": "transaction"})


@pytest.mark.parametrize("number", [FEW, MANY])
async def test_all_kinds_of_records_go_through_a_transaction_pooler(
    pooled: DatabaseSettings, agentobs_database: DatabaseSettings, tmp_path: Path, number: int
) -> None:
    with strict_recorder(pooled, tmp_path) as recorder:
        made = [
            recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
            for _ in range(number)
        ]
        recorder.barrier()
        with recorder.transformation(target_agent="agent-outer"):
            for decision in made:
                with recorder.transformation(target_agent="agent-inner", decision=decision):
                    recorder.outcome(decision, success=True, quality_score=0.5)
            # The outer one is stored by now, and is completed by an update.
            recorder.barrier()
        for decision in made:
            recorder.feedback(decision, "correction", {"should_have_been": "agent-testing"})

    metrics, runs = await decisions(agentobs_database), await events(agentobs_database)
    assert [row["id"] for row in metrics] == [decision.id for decision in made]
    assert {row["actual_success"] for row in metrics} == {True}
    assert {row["feedback_type"] for row in metrics} == {"correction"}
    assert len(runs) == number + 1
    assert {row["event_type"] for row in runs} == {"transformation_complete"}
    assert recorder.statistics().reconnected == 0
    assert list(read_dead_letters(tmp_path / "dead-letters")) == []


async def test_recorders_share_the_backends_of_a_transaction_pooler(
    pooled: DatabaseSettings, agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        recorders = [
            stack.enter_context(strict_recorder(pooled, tmp_path, flush_interval=0.005))
            for _ in range(RECORDERS)
        ]
        await asyncio.gather(*(asyncio.to_thread(_record_in_turns, each) for each in recorders))
    await asyncio.to_thread(stack.close)

    assert sum(each.statistics().retried for each in recorders) == 0
    metrics, runs = await decisions(agentobs_database), await events(agentobs_database)
    assert len(metrics) == len(runs) == RECORDERS * MANY
    assert {row["actual_success"] for row in metrics} == {True}


def _record_in_turns(recorder: Recorder) -> None:
    for number in range(MANY):
        decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
        with recorder.transformation(target_agent="agent-debug", decision=decision):
            pass
        if number % 10 == 0:
            recorder.barrier()
        recorder.outcome(decision, success=True)
