"""The rows of the demo are found by the questions that are asked of it."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from agentobs import AgentTransformationEvent
from agentobs.analytics import Window
from agentobs.keys import instant_of
from examples.workflow import make_rows


def test_each_row_has_a_key_of_its_instant_within_the_last_hour() -> None:
    begins = datetime(2026, 3, 1, 12, tzinfo=UTC)
    window = Window.last(timedelta(hours=1), until=begins)
    for row in make_rows(defaultdict(uuid4), begins):
        if isinstance(row, AgentTransformationEvent):
            begun, ended = row.started_at, row.completed_at
        else:
            begun, ended = row.measured_at, row.validated_at
        assert instant_of(row.id) == begun
        assert window.since <= begun
        assert ended is not None
        assert ended < window.until
