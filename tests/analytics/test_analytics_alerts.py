"""Checks fire beyond their bounds, and only with enough rows behind them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, text
from support.event_rows import EVENTS, METRICS

from agentobs import AgentTransformationEvent, EventType, MetricType, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.thresholds import MOST_COUNTED, AlertThresholds, alerts
from agentobs.errors import InvalidValueError
from agentobs.sessions import PoolStats

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from agentobs.analytics.thresholds import Alert

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
WINDOW = Window(NOON - HOUR, NOON)
# Ninety-one days before it are 16 March: what lies before March is to be gone.
FIRST_KEPT = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def add_runs(session: AsyncSession, *runs: dict[str, Any]) -> None:
    rows = [
        {
            "event_type": EventType.COMPLETE,
            "correlation_id": uuid4(),
            "target_agent": "a",
            "started_at": NOON - HOUR,
        }
        | run
        for run in runs
    ]
    await session.execute(insert(AgentTransformationEvent), rows)


async def add_decisions(session: AsyncSession, *decisions: dict[str, Any]) -> None:
    rows = [
        {"metric_type": MetricType.ROUTING_DECISION, "measured_at": NOON - HOUR} | decision
        for decision in decisions
    ]
    await session.execute(insert(RouterPerformanceMetric), rows)


def ended(succeeded: int, failed: int, agent: str = "a") -> list[dict[str, Any]]:
    runs = [*[True] * succeeded, *[False] * failed]
    return [{"target_agent": agent, "success": success} for success in runs]


async def check(
    session: AsyncSession, name: str, subject: str | None = None, **bounds: Any
) -> Alert:
    """Return the check of a name and a subject, of which there is one."""
    found = await alerts(session, WINDOW, AlertThresholds(**bounds))
    (one,) = (row for row in found if (row.name, row.subject) == (name, subject))
    return one


def pool_stats(acquisition_p95_ms: float | None) -> PoolStats:
    return PoolStats(
        size=5,
        idle=1,
        in_use=1,
        waiting=0,
        opened=2,
        recycled=0,
        acquisition_p95_ms=acquisition_p95_ms,
    )


@pytest.mark.parametrize(
    ("succeeded", "failed", "is_enough", "is_firing"),
    [
        (16, 4, True, False),
        (15, 5, True, True),
        (0, 20, True, True),
        (0, 19, False, False),
        (19, 0, False, False),
    ],
)
async def test_an_agent_that_fails_too_often_fires(
    session: AsyncSession, succeeded: int, failed: int, is_enough: bool, is_firing: bool
) -> None:
    running = [{"success": None}] * 5
    await add_runs(session, *ended(succeeded, failed), *running)

    found = await check(session, "agent_success_rate", "a")

    rows = succeeded + failed
    assert (found.value, found.bound, found.rows) == (succeeded / rows, 0.8, rows)
    assert (found.has_enough_data, found.is_firing) == (is_enough, is_firing)


async def test_an_agent_without_a_finished_run_is_not_enough_data(session: AsyncSession) -> None:
    await add_runs(session, *[{"success": None}] * 30)

    found = await check(session, "agent_success_rate", "a")

    assert (found.value, found.rows) == (None, 0)
    assert (found.has_enough_data, found.is_firing) == (False, False)


@pytest.mark.parametrize(
    ("hits", "misses", "is_enough", "is_firing"),
    [(12, 8, True, False), (11, 9, True, True), (0, 19, False, False)],
)
async def test_a_cache_that_hits_too_seldom_fires(
    session: AsyncSession, hits: int, misses: int, is_enough: bool, is_firing: bool
) -> None:
    known = [*[{"cache_hit": True}] * hits, *[{"cache_hit": False}] * misses]
    await add_decisions(session, *known, *[{"cache_hit": None}] * 9)

    found = await check(session, "cache_hit_rate")

    assert (found.value, found.rows) == (hits / (hits + misses), hits + misses)
    assert (found.has_enough_data, found.is_firing) == (is_enough, is_firing)


@pytest.mark.parametrize(
    ("slow_us", "slow", "rows", "said"),
    [
        (100_001, 2, 20, (True, True)),
        (100_000, 2, 20, (True, False)),
        (900_000, 1, 20, (True, False)),
        (900_000, 19, 19, (False, False)),
    ],
)
async def test_a_router_whose_p95_is_above_the_target_fires(
    session: AsyncSession, slow_us: int, slow: int, rows: int, said: tuple[bool, bool]
) -> None:
    times = [*[slow_us] * slow, *[500] * (rows - slow), None]
    await add_decisions(session, *({"total_routing_time_us": time} for time in times))

    found = await check(session, "routing_p95_ms")

    assert found.value == (0.5 if slow == 1 else slow_us / 1000)
    assert (found.rows, (found.has_enough_data, found.is_firing)) == (rows, said)


async def test_bounds_can_be_set(session: AsyncSession) -> None:
    await add_runs(session, *ended(1, 1))
    await add_decisions(session, {"cache_hit": True, "total_routing_time_us": 10_000})
    strict = {"min_rows": 1, "min_success_rate": 0.51, "max_routing_p95_ms": 9.5}
    slack = {"min_rows": 1, "min_success_rate": 0.5, "max_routing_p95_ms": 10}

    for name, subject in (("agent_success_rate", "a"), ("routing_p95_ms", None)):
        assert (await check(session, name, subject, **strict)).is_firing
        assert not (await check(session, name, subject, **slack)).is_firing


async def test_rows_that_are_not_in_the_window_fire_nothing(session: AsyncSession) -> None:
    before, after = NOON - HOUR - SECOND, NOON
    for instant in (before, after):
        await add_runs(session, *(run | {"started_at": instant} for run in ended(0, 30)))
        await add_decisions(session, *[{"measured_at": instant, "cache_hit": False}] * 30)

    found = await alerts(session, WINDOW)

    assert "agent_success_rate" not in {row.name for row in found}
    assert not any(row.is_firing for row in found)


async def test_all_checks_are_told_and_those_that_fire_come_first(session: AsyncSession) -> None:
    await add_runs(session, *ended(30, 0, "fine"), *ended(0, 30, "z"), *ended(0, 30, "it's"))
    await add_decisions(session, *[{"cache_hit": False, "total_routing_time_us": 1}] * 20)

    found = await alerts(session, WINDOW, pool=pool_stats(60))

    firing = [(row.name, row.subject) for row in found if row.is_firing]
    assert firing == [
        ("agent_success_rate", "it's"),
        ("agent_success_rate", "z"),
        ("cache_hit_rate", None),
        ("connection_acquisition_p95_ms", None),
    ]
    rest = [(row.name, row.subject) for row in found[len(firing) :]]
    assert rest[0] == ("agent_success_rate", "fine")
    assert rest == sorted(rest, key=lambda one: (one[0], one[1] or ""))
    assert {name for name, _ in rest} == {
        "agent_success_rate",
        "expired_rows_age_days",
        "partition_rows",
        "routing_p95_ms",
    }


@pytest.mark.parametrize(
    ("p95_ms", "has_enough_data", "is_firing"),
    [(50.0, True, False), (50.1, True, True), (None, False, False)],
)
async def test_a_pool_whose_connections_are_waited_for_too_long_fires(
    session: AsyncSession, p95_ms: float | None, has_enough_data: bool, is_firing: bool
) -> None:
    found = await alerts(session, WINDOW, pool=pool_stats(p95_ms))
    (waits,) = (row for row in found if row.name == "connection_acquisition_p95_ms")

    assert (waits.value, waits.bound, waits.rows) == (p95_ms, 50, None)
    assert (waits.has_enough_data, waits.is_firing) == (has_enough_data, is_firing)


async def test_without_a_pool_nothing_is_said_of_connections(session: AsyncSession) -> None:
    found = await alerts(session, WINDOW)
    assert "connection_acquisition_p95_ms" not in {row.name for row in found}


async def test_rows_of_a_month_that_should_be_gone_fire_by_the_table(session: AsyncSession) -> None:
    await add_runs(
        session,
        {"started_at": FIRST_KEPT - SECOND},
        {"started_at": FIRST_KEPT - 30 * DAY},
        {"started_at": FIRST_KEPT},
    )
    await add_decisions(session, {"measured_at": FIRST_KEPT})

    events = await check(session, "expired_rows_age_days", EVENTS)
    metrics = await check(session, "expired_rows_age_days", METRICS)

    assert (events.rows, events.bound, events.is_firing) == (2, 90, True)
    assert events.value == (NOON - FIRST_KEPT) / DAY + 30
    assert (metrics.rows, metrics.value, metrics.is_firing) == (0, None, False)
    assert metrics.has_enough_data


async def test_how_long_rows_are_kept_can_be_set(session: AsyncSession) -> None:
    await add_decisions(session, {"measured_at": NOON - 400 * DAY})

    name = "expired_rows_age_days"
    assert (await check(session, name, METRICS, retention=365 * DAY)).is_firing
    assert not (await check(session, name, METRICS, retention=500 * DAY)).is_firing
    assert not (await check(session, name, METRICS, retention=timedelta.max)).is_firing


async def test_rows_whose_keys_are_random_expire_by_their_instants(session: AsyncSession) -> None:
    await add_runs(
        session,
        {"id": UUID("ffffffff-ffff-4fff-bfff-ffffffffffff"), "started_at": NOON - 400 * DAY},
    )
    await add_runs(session, {"id": UUID("00000000-0000-4000-8000-000000000000")})

    found = await check(session, "expired_rows_age_days", EVENTS)

    assert (found.rows, found.value) == (1, 400)


async def test_years_of_rows_are_not_counted_to_the_end(session: AsyncSession) -> None:
    statement = text(
        "INSERT INTO agent_transformation_events"
        " (id, started_at, event_type, correlation_id, target_agent)"
        " SELECT agentobs_uuid7_at(at), at, 'x', gen_random_uuid(), 'a'"
        " FROM (SELECT CAST(:old AS timestamptz) AS at) instant, generate_series(1, :count)"
    )
    await session.execute(statement, {"old": NOON - 400 * DAY, "count": MOST_COUNTED + 1})

    assert (await check(session, "expired_rows_age_days", EVENTS)).rows == MOST_COUNTED


async def test_a_partition_with_more_rows_than_it_may_have_fires(session: AsyncSession) -> None:
    leaf = f"{METRICS}_default"
    connection = await session.connection()
    # What ANALYZE would write of a table that no test can fill.
    await connection.exec_driver_sql(
        f"UPDATE pg_class SET reltuples = 1000001 WHERE oid = '{leaf}'::regclass"
    )

    found = await check(session, "partition_rows", leaf)

    assert (found.value, found.bound, found.rows) == (1_000_001, 1_000_000, 1_000_001)
    assert found.is_firing
    assert not (
        await check(session, "partition_rows", leaf, max_partition_rows=1_000_001)
    ).is_firing


async def test_each_partition_is_checked_and_one_that_was_never_analyzed_is_not_known(
    session: AsyncSession,
) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql(
        f"UPDATE pg_class SET reltuples = -1 WHERE oid = '{EVENTS}_default'::regclass"
    )
    leaves = await connection.exec_driver_sql(
        "SELECT relid::regclass::text FROM pg_class, pg_partition_tree(pg_class.oid)"
        f" WHERE relname IN ('{EVENTS}', '{METRICS}') AND isleaf"
    )

    found = [row for row in await alerts(session, WINDOW) if row.name == "partition_rows"]

    assert {row.subject for row in found} == set(leaves.scalars())
    (unknown,) = (row for row in found if row.subject == f"{EVENTS}_default")
    assert (unknown.value, unknown.rows) == (None, None)
    assert (unknown.has_enough_data, unknown.is_firing) == (False, False)


@pytest.mark.parametrize(
    "bad",
    [
        {"min_cache_hit_rate": 1.1},
        {"min_success_rate": -0.1},
        {"min_success_rate": float("nan")},
        {"max_routing_p95_ms": 0},
        {"max_routing_p95_ms": float("inf")},
        {"max_acquisition_p95_ms": float("nan")},
        {"retention": timedelta(hours=23)},
        {"max_partition_rows": 0},
        {"min_rows": 0},
        {"no_such_bound": 1},
    ],
    ids="-".join,
)
def test_bounds_that_make_no_sense_are_refused_by_their_name(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(InvalidValueError, match=f"AlertThresholds.{name}"):
        AlertThresholds(**bad)


def test_bounds_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AlertThresholds().min_rows = 1  # type: ignore[misc]


@given(rate=st.floats(0, 1), rows=st.integers(1, 2**40))
def test_any_sound_bounds_are_kept(rate: float, rows: int) -> None:
    bounds = AlertThresholds(min_success_rate=rate, min_rows=rows)
    assert (bounds.min_success_rate, bounds.min_rows) == (rate, rows)


async def test_checks_become_a_table(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")
    table = (await alerts(session, WINDOW)).to("arrow")
    assert table["is_firing"].to_pylist() == [False] * table.num_rows
