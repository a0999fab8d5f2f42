"""Windows have two ends, know the one before them, and hold rows by their keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql

from agentobs import AgentTransformationEvent
from agentobs.analytics import Window
from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH, uuid7_floor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_window_is_kept_in_utc() -> None:
    elsewhere = timezone(timedelta(hours=5))
    window = Window(NOON.astimezone(elsewhere), (NOON + HOUR).astimezone(elsewhere))

    assert (window.since, window.since.tzinfo) == (NOON, UTC)
    assert window == Window(NOON, NOON + HOUR)
    assert window.length == HOUR


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (None, NOON),
        (NOON, None),
        (NOON, "2026-03-01"),
        (NOON.replace(tzinfo=None), NOON + HOUR),
        (NOON, NOON.replace(tzinfo=None)),
        (NOON, NOON),
        (NOON + HOUR, NOON),
        (EPOCH - HOUR, NOON),
    ],
)
def test_a_window_without_two_sound_ends_is_refused(since: Any, until: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^window"):
        Window(since, until)


def test_the_window_before_has_its_length_and_touches_it() -> None:
    assert Window(NOON, NOON + HOUR).before == Window(NOON - HOUR, NOON)
    assert Window(EPOCH, NOON).before is None


def test_the_last_hours_end_now_or_where_it_is_said() -> None:
    before = datetime.now(UTC)
    window = Window.last(HOUR)
    after = datetime.now(UTC)

    assert before <= window.until <= after
    assert window.length == HOUR
    assert Window.last(HOUR, until=NOON) == Window(NOON - HOUR, NOON)
    assert Window.last(timedelta.max, until=NOON) == Window(EPOCH, NOON)
    with pytest.raises(InvalidValueError):
        Window.last(timedelta(0))


@pytest.mark.parametrize("length", [7, 7.0, "7d", None])
def test_a_length_that_is_no_timedelta_is_refused_with_one_that_is(length: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"timedelta\(days=7\)"):
        Window.last(length)


def test_an_instant_without_a_time_zone_is_refused_with_one_that_has_it() -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(InvalidValueError, match=r"use datetime\.now\(UTC\)"):
        Window.last(HOUR, until=naive)
    with pytest.raises(InvalidValueError, match=r"use datetime\.now\(UTC\)"):
        Window(naive, NOON + HOUR)


def test_a_window_is_one_of_keys() -> None:
    condition = Window(NOON, NOON + HOUR).holds(AgentTransformationEvent)
    compiled = condition.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]

    assert list(compiled.params.values()) == [uuid7_floor(NOON), uuid7_floor(NOON + HOUR)]
