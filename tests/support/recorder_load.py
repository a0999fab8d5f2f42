"""A service that records without a pause, whatever happens to its database."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.embedded import wait_until
from support.recorders import decisions, events, strict_recorder

from agentobs.recorder.dead_letters.writing import read_dead_letters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from agentobs import DatabaseSettings, Recorder


class Load:
    """A thread that records without a pause, and what its calls had returned."""

    def __init__(self, recorder: Recorder) -> None:
        self.decisions: list[UUID] = []
        self.runs: list[UUID] = []
        self.qualities: dict[UUID, float] = {}
        self._recorder = recorder
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    async def go_on(self, number: int = 50) -> None:
        """Wait until it has recorded some more."""
        enough = len(self.decisions) + number
        await asyncio.to_thread(wait_until, lambda: len(self.decisions) >= enough)

    def _work(self) -> None:
        # A pause between records: what accumulates in an outage is no measure here.
        while not self._is_over.wait(0.001):
            self._record()

    def _record(self) -> None:
        number, recorder = len(self.decisions), self._recorder
        decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
        with recorder.transformation(target_agent="agent-debug", decision=decision) as run:
            pass
        self.runs.append(run.id)
        self.decisions.append(decision.id)
        if number % 2:
            key = self.decisions[number // 2]
            quality = number % 100 / 100
            recorder.outcome(key, success=True, quality_score=quality)
            self.qualities[key] = quality


@asynccontextmanager
async def recording(
    database: DatabaseSettings, folder: Path, delivery: str = "drop", **options: Any
) -> AsyncIterator[Load]:
    """Record for the block; what was accepted is written at its end, and no more than that."""
    recorder = strict_recorder(
        database, folder, delivery=delivery, buffer_rows=100_000, flush_rows=200, **options
    ).start()
    try:
        with Load(recorder) as load:
            await load.go_on()
            yield load
    finally:
        report = await recorder.aclose()
    assert report.is_complete
    assert not any(recorder.statistics().dropped.values())
    assert list(read_dead_letters(folder / "dead-letters")) == []


async def assert_stored(database: DatabaseSettings, *loads: Load) -> None:
    """Assert that all of it is stored, and nothing beside it."""
    metrics = {row["id"]: row for row in await decisions(database)}
    runs = {row["id"]: row["success"] for row in await events(database)}
    assert metrics.keys() == {key for load in loads for key in load.decisions}
    assert runs == {key: True for load in loads for key in load.runs}
    for load in loads:
        for key, quality in load.qualities.items():
            assert float(metrics[key]["actual_quality_score"]) == quality
