"""The plan is pure: what is done to hand-made tables, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from agentobs.errors import InvalidValueError
from agentobs.maintenance import Month, Policy
from agentobs.maintenance.catalog import MonthState, Partition, Strays, TableState
from agentobs.maintenance.plan import (
    DiscardRestoration,
    DiscardRewrite,
    DropExpired,
    ExpireMonth,
    ExpirePayload,
    MakeMonth,
    make_plan,
)
from agentobs.maintenance.tables import EVENTS, MonthPartition

NOW = datetime(2024, 6, 15, tzinfo=UTC)
JANUARY, MARCH, MAY, JUNE = (Month(2024, number) for number in (1, 3, 5, 6))
DAY = timedelta(days=1)
DEFAULT = Partition(EVENTS.default, None, is_default=True, rows=0, size=0)
UP_TO_DATE = {"ahead": 0, "now": NOW}


def partition(month: Month, *, name: str | None = None, rows: int | None = 7) -> Partition:
    bounds = (month.lower_id, month.upper_id)
    return Partition(name or EVENTS.partition(month), month, False, rows, 0, bounds)


def table(*months: Month, others: tuple[Partition, ...] = (), **facts: Any) -> TableState:
    values = {"strays": (), "states": ()} | facts
    return TableState(EVENTS, (*map(partition, months), *others, DEFAULT), **values)


def done(month: Month, **facts: Any) -> MonthState:
    nothing = {"is_expired": False, "is_restored": False, "is_payload_expired": False}
    return MonthState(month, **{**nothing, "archive": None, **facts})


def part(month: Month) -> MonthPartition:
    return MonthPartition(EVENTS, month)


def plan(state: TableState, **policy: Any) -> list[Any]:
    return list(make_plan([state], Policy(**{**UP_TO_DATE, **policy})).steps)


def notes(state: TableState, **policy: Any) -> list[str]:
    return list(make_plan([state], Policy(**{**UP_TO_DATE, **policy})).notes)


def test_this_month_and_those_ahead_are_made_that_are_missing() -> None:
    made = plan(table(JUNE), ahead=3)

    assert [str(step.part.month) for step in made] == ["2024-07", "2024-08", "2024-09"]


def test_where_nothing_is_to_be_done_the_plan_is_empty() -> None:
    assert plan(table(JANUARY, JUNE)) == []


def test_what_is_planned_is_the_same_for_the_same_tables() -> None:
    state = table(JANUARY, strays=(Strays(MARCH, fits=True, rows=2),))

    assert plan(state, keep=30 * DAY) == plan(state, keep=30 * DAY)


def test_rows_in_default_get_the_partition_of_their_month() -> None:
    state = table(JUNE, strays=(Strays(MARCH, True, 5), Strays(MARCH, False, 2)))

    assert plan(state) == [MakeMonth(part(MARCH), moved=5, rekeyed=2, seen=7)]


def test_rows_of_no_month_are_no_work_but_a_note() -> None:
    state = table(JUNE, strays=(Strays(None, False, 3), Strays(MARCH, False, 1)))

    assert plan(state) == []
    assert "4 rows stay in agent_transformation_events_default" in notes(state)[0]


def test_nothing_expires_where_nobody_asks_for_it() -> None:
    assert plan(table(Month(1970, 1), JUNE)) == []


def test_a_month_expires_when_its_youngest_row_may_have_reached_the_age() -> None:
    state = table(MAY, JUNE)
    # The last row of May may be a day late.
    age = NOW - datetime(2024, 6, 2, tzinfo=UTC)

    assert plan(state, keep=age) == [ExpireMonth(part(MAY), 7)]
    assert plan(state, keep=age + timedelta(microseconds=1)) == []


def test_payload_expires_of_closed_months_that_are_too_young_for_their_rows_to_go() -> None:
    steps = plan(table(JANUARY, MARCH, MAY, JUNE), keep=120 * DAY, keep_payload=30 * DAY)

    assert steps == [ExpireMonth(part(JANUARY), 7), ExpirePayload(part(MARCH), 7)]


def test_payload_expires_once() -> None:
    state = table(MARCH, JUNE, states=(done(MARCH, is_payload_expired=True),))

    assert plan(state, keep_payload=30 * DAY) == []


def test_a_month_that_was_brought_back_stays_until_it_is_released() -> None:
    pinned = table(MARCH, JUNE, states=(done(MARCH, is_restored=True),))
    released = table(MARCH, JUNE, states=(done(MARCH),))

    assert plan(pinned, keep=30 * DAY) == plan(pinned, keep_payload=30 * DAY) == []
    assert plan(released, keep=30 * DAY) == [ExpireMonth(part(MARCH), 7)]


def test_late_rows_of_a_month_that_is_gone_are_gathered_and_go_the_same_way() -> None:
    state = table(
        JUNE, states=(done(MARCH, is_expired=True),), strays=(Strays(MARCH, fits=True, rows=2),)
    )

    assert plan(state, keep=30 * DAY) == [
        MakeMonth(part(MARCH), moved=2, seen=2),
        ExpireMonth(part(MARCH), 2),
    ]


def test_a_month_that_was_detached_is_dropped_where_its_archive_is() -> None:
    state = table(JUNE, states=(done(MARCH, is_expired=True, archive="/a"),), detached=(MARCH,))

    assert plan(state, archive="/b") == [DropExpired(part(MARCH), "/a")]


def test_late_rows_wait_for_the_name_of_a_month_that_is_still_to_be_dropped() -> None:
    state = table(JUNE, detached=(MARCH,), strays=(Strays(MARCH, fits=True, rows=2),))

    assert plan(state) == [DropExpired(part(MARCH)), MakeMonth(part(MARCH), moved=2, seen=2)]


def test_months_ahead_are_made_before_what_takes_long() -> None:
    kinds = [type(step) for step in plan(table(MARCH, detached=(JANUARY,)), keep=DAY)]

    assert kinds == [MakeMonth, DropExpired, ExpireMonth]


def test_what_broken_off_work_has_left_is_discarded_before_the_month_is_touched() -> None:
    state = table(MARCH, JUNE, rewrites=(MARCH,), restorations=(JANUARY,))

    assert plan(state, keep_payload=30 * DAY) == [
        DiscardRewrite(part(MARCH)),
        DiscardRestoration(part(JANUARY)),
        ExpirePayload(part(MARCH), 7),
    ]


def test_a_partition_has_the_name_that_the_catalog_gives_it() -> None:
    state = table(JUNE, others=(partition(MARCH, name="spring"),))

    (step,) = plan(state, keep=30 * DAY)

    assert step.part.name == "spring"
    assert step.part.usual_name == "agent_transformation_events_y2024m03"


def test_a_partition_of_other_bounds_is_left_alone_and_no_month_is_made_in_it() -> None:
    bounds = (Month(2024, 1).lower_id, Month(2025, 1).lower_id)
    year = Partition("year", None, is_default=False, rows=1, size=0, bounds=bounds)
    state = table(others=(year,))

    steps = plan(state, ahead=7, keep=DAY)

    assert [str(step.part.month) for step in steps] == ["2025-01"]
    assert notes(state) == ["year is left alone: it is no partition of a month"]


def test_a_partition_without_end_takes_all_months_behind_it() -> None:
    rest = Partition(
        "rest", None, is_default=False, rows=1, size=0, bounds=(JUNE.lower_id, UUID(int=2**128 - 1))
    )

    assert plan(table(MAY, others=(rest,)), ahead=24) == []


def test_a_table_that_has_the_name_of_a_month_is_told_of_and_stops_nothing_else() -> None:
    state = table(
        in_the_way=(JUNE,), strays=(Strays(MARCH, fits=True, rows=2), Strays(JUNE, True, 1))
    )

    assert [step.part.month for step in plan(state)] == [MARCH]
    assert any("_y2024m06 can't be made" in note for note in notes(state))


def test_the_plan_says_how_long_others_wait_where_more_than_10_000_rows_are_moved() -> None:
    assert MakeMonth(part(MARCH), moved=10_000, seen=10_000).locked_seconds == 0
    assert "waits for about" not in str(MakeMonth(part(MARCH), moved=10_000))
    assert "waits for about" in str(MakeMonth(part(MARCH), moved=10_001))


def test_the_plan_says_how_long_others_wait_where_default_is_large() -> None:
    assert "waits for about" in str(MakeMonth(part(MARCH), seen=10_000_000))


def test_a_number_of_rows_that_the_server_does_not_know_is_not_made_up() -> None:
    state = table(JUNE, others=(partition(MARCH, rows=None),))

    (step,) = plan(state, keep=30 * DAY)

    assert str(step) == "detach and drop agent_transformation_events_y2024m03 (never analyzed)"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"ahead": -1}, "ahead must lie"),
        ({"ahead": 25}, "ahead must lie"),
        ({"keep": timedelta(hours=23)}, "a day at least"),
        ({"keep_payload": timedelta(0)}, "a day at least"),
        ({"keep": 14 * DAY, "keep_payload": 14 * DAY}, "must be less than keep"),
        ({"now": datetime(2024, 6, 1)}, "time zone"),  # noqa: DTZ001
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        Policy(**policy)


def test_an_age_beyond_all_instants_keeps_everything() -> None:
    assert plan(table(Month(1970, 1), JUNE), keep=timedelta.max) == []


def test_no_month_goes_while_a_table_of_the_host_refers_to_it() -> None:
    state = table(JANUARY, JUNE, references=("constraint notes_event_id_fkey on table notes",))

    assert plan(state, keep=90 * DAY) == plan(state, keep_payload=DAY) == []
    assert any("notes_event_id_fkey" in note for note in notes(state, keep=90 * DAY))
    assert notes(state) == []


def test_a_month_that_was_restored_is_named_until_it_is_released() -> None:
    restored = table(JANUARY, JUNE, states=(done(JANUARY, is_restored=True),))

    assert any("was restored, and stays until" in note for note in notes(restored))
