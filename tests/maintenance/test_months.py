from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentobs.errors import InvalidValueError
from agentobs.keys import uuid7_at, uuid7_floor
from agentobs.maintenance import Month
from agentobs.maintenance.months import SLACK
from agentobs.maintenance.tables import EVENTS, MonthPartition

FIRST, LAST = datetime(1970, 1, 1), datetime(9999, 11, 30, 23, 59, 59, 999_999)  # noqa: DTZ001
instants = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
months = st.builds(Month.of, instants)


@given(instants)
def test_every_instant_lies_in_its_month_and_its_key_in_the_months_keys(instant: datetime) -> None:
    month = Month.of(instant)

    assert month.first <= instant < month.end
    assert month.lower_id <= uuid7_at(instant) < month.upper_id


@given(instants)
def test_the_check_of_a_partition_takes_every_instant_whose_key_the_partition_takes(
    instant: datetime,
) -> None:
    first, end = MonthPartition(EVENTS, Month.of(instant)).instants

    assert first <= instant < end


@given(instants, st.integers(-14 * 60, 14 * 60))
def test_a_month_is_one_of_utc_wherever_the_clock_stands(instant: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    # Python has no local time outside the years 1 to 9999.
    local = instant.astimezone(zone)

    assert Month.of(local) == Month.of(instant)


@given(months)
def test_the_bounds_of_a_month_tell_the_month(month: Month) -> None:
    assert Month.of_bounds(month.lower_id, month.upper_id) == month


@given(months)
def test_the_suffix_of_a_month_tells_the_month(month: Month) -> None:
    assert Month.of_suffix(month.suffix) == month


@given(st.lists(months, min_size=2))
def test_months_and_their_names_and_their_keys_have_one_order(found: list[Month]) -> None:
    ordered = sorted(found)

    assert ordered == sorted(found, key=lambda month: month.suffix)
    assert ordered == sorted(found, key=lambda month: month.lower_id)


@given(st.builds(Month, st.integers(1970, 9998), st.integers(1, 12)))
def test_between_two_months_no_key_is_lost_and_none_is_in_both(month: Month) -> None:
    following = month.next()

    assert month.end == following.first
    assert month.upper_id == following.lower_id


@pytest.mark.parametrize(
    ("month", "days"),
    [
        (Month(2023, 2), 28),
        (Month(2024, 2), 29),
        (Month(2000, 2), 29),
        (Month(2100, 2), 28),
        (Month(2024, 12), 31),
        (Month(2024, 4), 30),
    ],
)
def test_a_month_has_the_days_of_the_calendar(month: Month, days: int) -> None:
    assert month.end - month.first == timedelta(days=days)


def test_the_months_ahead_go_over_the_end_of_the_year() -> None:
    ahead = [str(month) for month in Month(2024, 11).and_following(3)]

    assert ahead == ["2024-11", "2024-12", "2025-01", "2025-02"]


def test_no_month_ahead_is_this_month_alone() -> None:
    assert list(Month(2024, 2).and_following(0)) == [Month(2024, 2)]


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (
            uuid7_floor(datetime(2024, 1, 1, tzinfo=UTC)),
            uuid7_floor(datetime(2025, 1, 1, tzinfo=UTC)),
        ),
        (uuid7_floor(datetime(2024, 1, 2, tzinfo=UTC)), Month(2024, 1).upper_id),
        (Month(2024, 1).lower_id, UUID(int=Month(2024, 1).upper_id.int - 1)),
        (UUID(int=0), Month(2024, 1).upper_id),
        (uuid4(), uuid4()),
        (UUID("ffffffff-ffff-7000-8000-000000000000"), UUID(int=2**128 - 1)),
    ],
)
def test_bounds_of_another_kind_are_no_months(lower: UUID, upper: UUID) -> None:
    assert Month.of_bounds(lower, upper) is None


@pytest.mark.parametrize("suffix", ["y2024m13", "y2024m00", "y1969m12", "y9999m12", "default", ""])
def test_a_suffix_of_no_month_tells_none(suffix: str) -> None:
    assert Month.of_suffix(suffix) is None


@pytest.mark.parametrize("year_and_month", [(1969, 12), (9999, 12), (2024, 13), (2024, 0)])
def test_what_is_no_month_is_refused(year_and_month: tuple[int, int]) -> None:
    with pytest.raises(InvalidValueError, match="1970-01 to 9999-11"):
        Month(*year_and_month)


def test_the_check_leaves_a_day_of_slack_on_both_sides() -> None:
    first, end = MonthPartition(EVENTS, Month(2024, 3)).instants

    assert (first, end) == (datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 4, 2, tzinfo=UTC))
    assert timedelta(days=1) == SLACK
