"""Recorders that nobody starts, and that can't start by themselves."""

from __future__ import annotations

from itertools import pairwise
from threading import Barrier, Thread
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from support.pools import eventually

from agentobs import Recorder
from agentobs.errors import ConfigurationError
from agentobs.recorder import lifetime
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from agentobs import DatabaseSettings

ADDRESS = "AGENTOBS_DATABASE_URL"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when the settings were read, in an environment that has no address."""
    made: list[float] = []

    def read() -> DatabaseSettings:
        made.append(monotonic())
        return read_settings()

    monkeypatch.delenv(ADDRESS, raising=False)
    monkeypatch.setattr(lifetime, "read_settings", read)
    return made


def test_a_recorder_that_can_not_start_tries_once_a_second_from_all_threads(
    readings: list[float], tmp_path: Path
) -> None:
    recorder = Recorder(folder=tmp_path)
    begin = Barrier(8)

    def record() -> None:
        begin.wait()
        for _ in range(100):
            recorder.routing_decision(selected_agent="agent")

    threads = [Thread(target=record) for _ in range(8)]
    began = monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert recorder.statistics().refused == {"decision": 800}
    assert 1 <= len(readings) <= 1 + (monotonic() - began)
    assert all(b - a >= 1 for a, b in pairwise(readings))


async def test_a_recorder_starts_soon_after_it_can(
    readings: list[float],
    agentobs_database: DatabaseSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder(folder=tmp_path)
    with recorder.transformation(target_agent="agent"):
        recorder.routing_decision()
    assert len(readings) == 1
    assert agentobs_database.database_url is not None
    monkeypatch.setenv(ADDRESS, agentobs_database.database_url.get_secret_value())

    async def is_taken() -> bool:
        recorder.routing_decision()
        return "decision" in recorder.statistics().accepted

    await eventually(is_taken)

    assert recorder.close().is_complete
    assert len(readings) == 2


def test_who_starts_a_recorder_himself_is_told_at_once_each_time(
    readings: list[float], tmp_path: Path
) -> None:
    recorder = Recorder(folder=tmp_path)
    recorder.routing_decision()

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=ADDRESS):
            recorder.start()
    assert len(readings) == 3


def test_a_strict_recorder_tries_with_each_record(readings: list[float], tmp_path: Path) -> None:
    recorder = Recorder(folder=tmp_path, lenient=False)

    for _ in range(3):
        with pytest.raises(ConfigurationError, match=ADDRESS):
            recorder.routing_decision()
    assert len(readings) == 3
