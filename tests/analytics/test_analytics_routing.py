"""How fast the router was, and what was asked again, against plain Python over the same rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from agentobs import MetricType, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.decisions import repeated_requests, slowest
from agentobs.analytics.router import MOST_BUCKETS, RoutingBucket, routing, routing_summary
from agentobs.errors import InvalidValueError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

MICROSECOND, MINUTE, HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + HOUR)

TIMES = st.none() | st.sampled_from([0, 99_999, 100_000]) | st.integers(0, 2**31 - 1)
DECISIONS = st.lists(
    st.fixed_dictionaries(
        {
            "metric_type": st.sampled_from([*MetricType, "other"]),
            "total_routing_time_us": TIMES,
            "cache_lookup_us": TIMES,
            "trigger_matching_us": TIMES,
            "confidence_scoring_us": TIMES,
            "cache_hit": st.none() | st.booleans(),
            "cache_age_seconds": TIMES,
            "user_request_hash": st.sampled_from([None, "a", "b"]),
            "context_hash": st.sampled_from([None, "c", "d"]),
            "offset": st.timedeltas(timedelta(0), 3 * HOUR - MICROSECOND),
        }
    ),
    max_size=40,
)
WINDOWS = count(1)
MANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


async def add_decisions(session: AsyncSession, *decisions: dict[str, Any]) -> None:
    rows = [
        {"metric_type": MetricType.ROUTING_DECISION, "measured_at": NOON} | decision
        for decision in decisions
    ]
    if rows:
        await session.execute(insert(RouterPerformanceMetric), rows)


def timed(*microseconds: int | None, **values: Any) -> list[dict[str, Any]]:
    return [{"total_routing_time_us": each, **values} for each in microseconds]


def asked(request: str | None, *hits: bool | None, context: str | None = "c") -> list[Any]:
    return [
        {
            "user_request_hash": request,
            "context_hash": context,
            "cache_hit": hit,
            "total_routing_time_us": 10 ** (number + 1),
            "measured_at": NOON + number * MINUTE,
        }
        for number, hit in enumerate(hits)
    ]


def known(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def disc(values: Sequence[int], share: float) -> int | None:
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)] if values else None


def average(values: Sequence[Any]) -> float | None:
    return fmean(values) if values else None


def numbers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    totals, hits = known(rows, "total_routing_time_us"), known(rows, "cache_hit")
    told: dict[str, Any] = {
        "decisions": len(rows),
        "timed": len(totals),
        "mean_total_us": average(totals),
        "p50_total_us": disc(totals, 0.5),
        "p95_total_us": disc(totals, 0.95),
        "p99_total_us": disc(totals, 0.99),
        "over_target_share": average([total >= 100_000 for total in totals]),
        "cache_lookups": len(hits),
        "cache_hit_rate": average(hits),
        "mean_cache_age_seconds": average(
            known([row for row in rows if row["cache_hit"]], "cache_age_seconds")
        ),
    }
    for name in ("cache_lookup_us", "trigger_matching_us", "confidence_scoring_us"):
        told[f"mean_{name}"] = average(known(rows, name))
        told[f"p95_{name}"] = disc(known(rows, name), 0.95)
    return told


def of_rows(found: Any) -> dict[str, Any]:
    told: dict[str, Any] = found.model_dump(exclude={"begins_at", "ends_at", "is_whole"})
    return told


def next_window() -> Window:
    """Three hours which no example shares, from half past on."""
    begin = NOON + MINUTE * 30 + 4 * HOUR * next(WINDOWS)
    return Window(begin, begin + 3 * HOUR)


async def add_in(session: AsyncSession, window: Window, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["measured_at"] = window.since + row.pop("offset")
    await add_decisions(session, *rows)


@MANY
@given(rows=DECISIONS)
async def test_a_series_has_the_numbers_of_each_bucket_s_rows(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> None:
    window = next_window()
    await add_in(session, window, rows)

    found = await routing(session, window, HOUR)

    first = window.since - 30 * MINUTE
    assert [row.begins_at for row in found] == [first + number * HOUR for number in range(4)]
    assert [row.is_whole for row in found] == [False, True, True, False]
    for bucket in found:
        inside = [row for row in rows if bucket.begins_at <= row["measured_at"] < bucket.ends_at]
        assert of_rows(bucket) == pytest.approx(numbers(inside))


@MANY
@given(rows=DECISIONS)
async def test_a_summary_has_the_numbers_of_the_whole_window(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> None:
    window = next_window()
    await add_in(session, window, rows)

    found = await routing_summary(session, window)

    assert of_rows(found) == pytest.approx(numbers(rows))
    assert (found.begins_at, found.ends_at) == (window.since, window.until)


@MANY
@given(rows=DECISIONS)
async def test_types_of_rows_can_be_chosen(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> None:
    window, types = next_window(), {MetricType.ROUTING_DECISION, "other"}
    await add_in(session, window, rows)
    chosen = [row for row in rows if row["metric_type"] in types]

    found = await routing_summary(session, window, metric_types=types)
    series = await routing(session, window, DAY, metric_types=types)
    slow = await slowest(session, window, metric_types=types, limit=100)

    assert of_rows(found) == pytest.approx(numbers(chosen))
    assert sum(bucket.decisions for bucket in series) == len(chosen)
    assert len(slow) == len(known(chosen, "total_routing_time_us"))


async def test_no_type_is_no_row_and_a_text_is_no_collection(session: AsyncSession) -> None:
    await add_decisions(session, *timed(1))

    assert (await routing_summary(session, WINDOW, metric_types=[])).decisions == 0
    with pytest.raises(InvalidValueError, match="collection"):
        await routing_summary(session, WINDOW, metric_types="cache_hit")


async def test_nothing_has_no_numbers_but_counts(session: AsyncSession) -> None:
    summary = await routing_summary(session, WINDOW)
    (bucket,) = await routing(session, WINDOW, HOUR)

    counts = {"decisions", "timed", "cache_lookups"}
    for found in (of_rows(summary), of_rows(bucket)):
        assert {name for name, value in found.items() if value == 0} == counts
        assert {value for name, value in found.items() if name not in counts} == {None}
    assert bucket.is_whole


@pytest.mark.parametrize(("target_us", "share"), [(100, 0.5), (101, 0.25), (1, 0.75)])
async def test_a_decision_that_takes_as_long_as_the_target_misses_it(
    session: AsyncSession, target_us: int, share: float
) -> None:
    await add_decisions(session, *timed(0, 50, 100, 101, None))

    summary = await routing_summary(session, WINDOW, target_us=target_us)
    (bucket,) = await routing(session, WINDOW, HOUR, target_us=target_us)

    assert (summary.over_target_share, bucket.over_target_share) == (share, share)
    assert (summary.decisions, summary.timed) == (5, 4)


@pytest.mark.parametrize(
    ("every", "begins"),
    [
        (DAY, datetime(2026, 3, 1, tzinfo=UTC)),
        (7 * DAY, datetime(2026, 2, 23, tzinfo=UTC)),
        (8 * HOUR, datetime(2026, 3, 1, 8, tzinfo=UTC)),
        (5 * MINUTE, NOON),
    ],
    ids=str,
)
async def test_buckets_begin_with_a_utc_day_and_those_of_weeks_on_a_monday(
    session: AsyncSession, every: timedelta, begins: datetime
) -> None:
    await add_decisions(session, *timed(1))

    series = await routing(session, WINDOW, every)

    assert series[0].begins_at == begins
    assert [bucket.decisions for bucket in series] == [1, *[0] * (len(series) - 1)]


async def test_the_time_zone_of_the_session_moves_no_bucket(session: AsyncSession) -> None:
    await (await session.connection()).exec_driver_sql("SET LOCAL TIME ZONE 'Asia/Kathmandu'")
    await add_decisions(session, *timed(1))

    (bucket,) = await routing(session, Window(NOON - 12 * HOUR, NOON + 12 * HOUR), DAY)

    assert (bucket.begins_at, bucket.decisions) == (NOON - 12 * HOUR, 1)


@pytest.mark.parametrize("clock", [-3 * HOUR, 3 * HOUR], ids=["behind", "ahead"])
async def test_a_row_whose_instant_is_not_that_of_its_key_is_lost_from_no_series(
    session: AsyncSession, clock: timedelta
) -> None:
    await add_decisions(session, {"id": uuid7_at(NOON), "measured_at": NOON + clock})

    series = await routing(session, WINDOW, 30 * MINUTE)

    assert sorted(bucket.decisions for bucket in series) == [0, 1]


@pytest.mark.parametrize("every", [timedelta(0), -HOUR, 7 * HOUR, 36 * HOUR], ids=str)
async def test_a_step_that_is_no_even_part_of_a_day_nor_days_is_refused(
    session: AsyncSession, every: timedelta
) -> None:
    with pytest.raises(InvalidValueError, match="even part of a day"):
        await routing(session, WINDOW, every)


async def test_a_series_of_too_many_buckets_is_refused(session: AsyncSession) -> None:
    most = Window(NOON, NOON + MOST_BUCKETS * MINUTE)
    more = Window(NOON, most.until + MICROSECOND)

    assert len(await routing(session, most, MINUTE)) == MOST_BUCKETS
    with pytest.raises(InvalidValueError, match=r"10,001 buckets.*longer step"):
        await routing(session, more, MINUTE)


async def test_a_bucket_may_end_where_instants_do(session: AsyncSession) -> None:
    end = datetime.max.replace(tzinfo=UTC)

    (bucket,) = await routing(session, Window(end - MINUTE, end), DAY)

    assert (bucket.ends_at, bucket.is_whole) == (end, False)


async def test_the_slowest_come_first_with_their_parts_and_of_equals_the_newest(
    session: AsyncSession,
) -> None:
    parts = {"cache_lookup_us": 1, "trigger_matching_us": 2, "confidence_scoring_us": 3}
    await add_decisions(
        session,
        *timed(5, 9, None, selected_agent="a"),
        *timed(7, measured_at=NOON + MINUTE, **parts),
        *timed(7, measured_at=NOON + 2 * MINUTE, selection_strategy="fuzzy", cache_hit=True),
        *timed(1_000, measured_at=NOON + HOUR),
    )

    found = await slowest(session, WINDOW, limit=3)

    assert [row.total_routing_time_us for row in found] == [9, 7, 7]
    assert [row.measured_at - NOON for row in found] == [timedelta(0), 2 * MINUTE, MINUTE]
    assert [row.selected_agent for row in found] == ["a", None, None]
    assert (found[1].selection_strategy, found[1].cache_hit) == ("fuzzy", True)
    assert found[2].model_dump(include=set(parts)) == parts


@MANY
@given(rows=DECISIONS)
async def test_repeated_requests_are_those_that_came_again_with_their_context(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> None:
    window = next_window()
    for number, row in enumerate(rows):
        # Of two at one instant either may be the first.
        row["offset"] = number * MINUTE
    await add_in(session, window, rows)

    found = await repeated_requests(session, window)

    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if row["user_request_hash"] is not None:
            groups.setdefault((row["user_request_hash"], row["context_hash"]), []).append(row)
    wanted = [repeated(*key, rows=group) for key, group in groups.items() if len(group) > 1]
    wanted.sort(
        key=lambda row: (-row["requests"], row["user_request_hash"], row["context_hash"] or "z")
    )
    assert [row.model_dump() for row in found] == wanted


def repeated(
    request: str, context: str | None, *, rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    again = rows[1:]
    times = known(again, "total_routing_time_us")
    return {
        "user_request_hash": request,
        "context_hash": context,
        "requests": len(rows),
        "cache_hits": known(rows, "cache_hit").count(True),
        "cache_misses": known(rows, "cache_hit").count(False),
        "missed_repeats": known(again, "cache_hit").count(False),
        "repeated_us": sum(times) if times else None,
        "first_seen_at": rows[0]["measured_at"],
        "last_seen_at": rows[-1]["measured_at"],
    }


async def test_the_first_time_is_no_fault_of_the_cache(session: AsyncSession) -> None:
    await add_decisions(
        session,
        *asked("often", False, True, False, None),
        *asked("once", False),
        *asked(None, False),
    )

    (row,) = await repeated_requests(session, WINDOW)

    assert row.user_request_hash == "often"
    assert (row.requests, row.cache_hits, row.cache_misses, row.missed_repeats) == (4, 1, 2, 1)
    assert row.repeated_us == 100 + 1_000 + 10_000


async def test_a_request_with_another_context_is_another_one(session: AsyncSession) -> None:
    await add_decisions(session, *asked("a", False), *asked("a", False, context="d"))
    assert len(await repeated_requests(session, WINDOW)) == 0


async def test_the_most_frequent_requests_fill_the_limit(session: AsyncSession) -> None:
    await add_decisions(
        session, *asked("twice", None, None), *asked("thrice", None, None, None, context=None)
    )

    (row,) = await repeated_requests(session, WINDOW, limit=1)

    assert (row.user_request_hash, row.context_hash, row.requests) == ("thrice", None, 3)
    assert (row.cache_hits, row.cache_misses, row.missed_repeats) == (0, 0, 0)


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_limit_out_of_bounds_is_refused(session: AsyncSession, limit: int) -> None:
    for question in (slowest, repeated_requests):
        with pytest.raises(InvalidValueError, match=r"limit must be within 1 and 10,000"):
            await question(session, WINDOW, limit)


async def test_a_series_becomes_a_table(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")

    table = (await routing(session, WINDOW, 30 * MINUTE)).to("arrow")

    assert table.column_names == list(RoutingBucket.model_fields)
    assert table["decisions"].to_pylist() == [0, 0]
