"""What a spool holds of a record is what memory would have written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentobs.recorder import Alternative, Confidence, RoutingDecision, Timings
from agentobs.recorder.entries import decode
from agentobs.recorder.intake import Intake
from agentobs.recorder.spool.frames import Frame, Position
from agentobs.recorder.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from agentobs.recorder.entries import Entry

TEXTS = st.none() | st.text(st.characters(), max_size=20)
SCORES = st.none() | st.floats(0, 1)
WHOLE = st.none() | st.integers(0, 2**31 - 1)
INSTANTS = st.datetimes(
    datetime(1970, 1, 3),  # noqa: DTZ001 (hypothesis takes naive bounds)
    datetime(9990, 1, 1),  # noqa: DTZ001 (as above)
    timezones=st.just(timezone(timedelta(hours=5))),
)
RECORDS = st.builds(
    RoutingDecision,
    selected_agent=TEXTS,
    strategy=TEXTS,
    confidence=st.none() | st.builds(Confidence, trigger=SCORES, historical=SCORES),
    confidence_score=SCORES,
    alternatives=st.lists(
        st.builds(Alternative, agent=st.text(max_size=9), confidence=SCORES, reason=TEXTS),
        max_size=3,
    ),
    timings_us=st.none() | st.builds(Timings, cache_lookup=WHOLE, total=WHOLE),
    cache_hit=st.none() | st.booleans(),
    cache_key=TEXTS,
    cache_age_seconds=WHOLE,
    user_request=TEXTS,
    context=st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    correlation_id=st.none() | st.uuids(),
    measured_at=st.none() | INSTANTS,
)


@given(record=RECORDS)
@settings(max_examples=200)
def test_a_decision_from_a_spool_is_the_row_that_memory_would_have_written(
    record: RoutingDecision, tmp_path_factory: pytest.TempPathFactory
) -> None:
    intake = Intake(2**18, None, is_lenient=False)
    _, entry = intake.decision(record)
    back = _through(entry, tmp_path_factory.mktemp("spool"))
    # What no JSON holds was replaced, and is counted, where the spool took it.
    counted = entry.changes

    assert (back.kind, back.id, back.is_start) == (entry.kind, entry.id, False)
    assert _row(back) == _row(entry)
    assert (counted + back.changes, back.cuts) == (entry.changes, entry.cuts)
    if record.measured_at is not None:
        assert entry.values["measured_at"] == record.measured_at


def _through(entry: Entry, folder: Path) -> Entry:
    spool = Spool.create(folder, "nowhere")
    try:
        payload = entry.encode()
        return decode(Frame(Position(1, 0), Position(1, len(payload)), payload), spool)
    finally:
        spool.close()


def _row(entry: Entry) -> dict[str, Any]:
    """Return its values, for a spool that holds them holds them as texts."""
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
        for name, value in entry.values.items()
    }
