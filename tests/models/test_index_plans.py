"""Which index answers each question that the tables are asked, and which months it leaves alone.

The statements are planned with the settings that a server comes with, on a year of rows. Windows
lie within the last closed month, so that the day of the run changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text, update
from support.event_rows import EVENTS, INSTANTS, METRICS
from support.plan_data import CLOSED, ROWS
from support.plan_questions import (
    AGENT,
    BRINS,
    BY_AGENT,
    EVENT_INDEX,
    METRIC_INDEX,
    OF_DEFINITIONS,
    OF_FEEDBACK,
    OF_WHAT_BELONGS_TOGETHER,
    OF_WINDOWS,
    PKEYS,
    TREE,
)
from support.plans import explain, scans_of, sent_by
from support.server_versions import needs_server

from agentobs import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.maintenance.months import SLACK
from agentobs.models import metadata
from agentobs.models.base import BRIN

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection
    from support.plan_fixtures import Year
    from support.plans import Plan

pytest_plugins = ["support.pool_fixtures", "support.plan_fixtures"]

MODELS = {EVENTS: AgentTransformationEvent, METRICS: RouterPerformanceMetric}
WEEK = timedelta(days=7)
OUTCOME: dict[str, Any] = {
    "selection_validated": True,
    "actual_success": True,
    "actual_quality_score": 0.5,
    "prediction_error": 0.3,
}

BOTH = pytest.mark.parametrize("table", [EVENTS, METRICS])
PINNED: set[str] = set()


def pins(*indexes: str) -> pytest.MarkDecorator:
    """Note by which indexes a question is answered; the test gets them one by one."""
    PINNED.update(indexes)
    return pytest.mark.parametrize("index", indexes)


def pins_in_both(indexes: dict[str, str]) -> pytest.MarkDecorator:
    PINNED.update(indexes.values())
    return pytest.mark.parametrize(("table", "index"), indexes.items())


def in_each(months: set[str], *indexes: str) -> set[tuple[str, str | None]]:
    return {(month, index) for month in months for index in indexes}


def within(plan: Plan, months: set[str]) -> set[tuple[str, str | None]]:
    """Leave out the leaves that may be all but empty, where the planner reads what there is."""
    return {pair for pair in plan.pairs if pair[0] in months}


async def keys_of(
    connection: AsyncConnection, table: str, year: Year, count: int, *, offset: int = 0
) -> list[UUID]:
    """Return ids of the last closed month, so far apart that no two share a page.

    Those of another offset, a multiple of 50, are in pages of their own.
    """
    found = await connection.execute(
        text(
            f"SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM {table}"
            " WHERE id >= :lower AND id < :upper) AS numbered WHERE n % 100 = :offset LIMIT :count"
        ),
        {
            "lower": year.last.lower_id,
            "upper": year.last.upper_id,
            "count": count,
            "offset": offset,
        },
    )
    return [row.id for row in found]


async def test_the_year_has_the_rows_that_make_plans_worth_a_look(
    connection: AsyncConnection, year: Year
) -> None:
    assert len(year.suffixes) == CLOSED >= 12
    for table in (EVENTS, METRICS):
        assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == ROWS >= 200_000
        strays = text(f"SELECT count(*) FROM {table}_default")
        assert await connection.scalar(strays) == 0


@pins(*OF_DEFINITIONS)
async def test_definitions_are_found_by_the_index_of_the_question(
    connection: AsyncConnection, index: str
) -> None:
    plan = await explain(connection, f"SELECT * FROM agent_definitions {OF_DEFINITIONS[index]}")
    assert plan.pairs == {("", index)}


async def test_the_best_performing_come_in_the_order_of_the_index_and_are_not_sorted(
    connection: AsyncConnection,
) -> None:
    question = OF_DEFINITIONS["idx_agent_definitions_performance"]
    plan = await explain(connection, f"SELECT * FROM agent_definitions {question}")
    assert "Sort" not in plan.nodes


PINNED |= {index for _, _, index, _ in OF_WHAT_BELONGS_TOGETHER.values()}


@pytest.mark.parametrize("question", OF_WHAT_BELONGS_TOGETHER)
async def test_what_belongs_together_is_found_in_each_month_by_its_index(
    connection: AsyncConnection, year: Year, question: str
) -> None:
    table, condition, index, count = OF_WHAT_BELONGS_TOGETHER[question]
    plan = await explain(connection, f"SELECT * FROM {table} WHERE {condition}", analyze=True)
    assert within(plan, year.suffixes) == in_each(year.suffixes, index)
    assert plan.rows == count


@pytest.mark.parametrize("question", OF_WHAT_BELONGS_TOGETHER)
async def test_what_belongs_together_is_looked_for_in_the_month_of_a_window_alone(
    connection: AsyncConnection, year: Year, question: str
) -> None:
    table, condition, index, _ = OF_WHAT_BELONGS_TOGETHER[question]
    plan = await explain(connection, f"SELECT * FROM {table} WHERE {year.window} AND {condition}")
    assert plan.pairs == {(year.last.suffix, index)}


@pins(f"{EVENT_INDEX}_parent")
async def test_the_children_of_an_event_are_found_by_their_parent(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    parent = "'01890000-0000-7000-8000-000000000000'"
    plan = await explain(connection, f"SELECT * FROM {EVENTS} WHERE parent_event_id = {parent}")
    assert within(plan, year.suffixes) == in_each(year.suffixes, index)


@pins(f"{EVENT_INDEX}_parent")
async def test_the_tree_of_a_workflow_is_walked_from_its_root_by_the_parent(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    plan = await explain(connection, TREE)
    both = in_each(year.suffixes, index, f"{EVENT_INDEX}_correlation")
    assert within(plan, year.suffixes) == both


@pins_in_both(BY_AGENT)
async def test_the_newest_of_an_agent_come_from_its_index_a_few_rows_from_each_month(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    plan = await explain(
        connection,
        f"SELECT * FROM {table} WHERE {AGENT[table]} = 'agent-8' ORDER BY id DESC LIMIT 50",
        analyze=True,
    )
    assert within(plan, year.suffixes) == in_each(year.suffixes, index)
    # A Merge Append looks at the newest row of each leaf, and then takes what it needs.
    assert "Sort" not in plan.nodes
    assert plan.rows <= 50 + len(plan.scans)


@pins_in_both(BY_AGENT)
async def test_the_newest_of_an_agent_between_two_keys_stop_before_the_older_months(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    plan = await explain(
        connection,
        f"SELECT * FROM {table} WHERE {AGENT[table]} = 'agent-8' AND "
        f"id >= '{year.closed[0].lower_id}' AND id < '{year.last.upper_id}' "
        "ORDER BY id DESC LIMIT 50",
        analyze=True,
    )
    assert plan.pairs == in_each(year.suffixes, index)
    assert "Sort" not in plan.nodes
    assert plan.rows <= 50 + len(plan.scans)
    await needs_server(connection, 15, "months are read in their order beside a DEFAULT")
    assert {scan.leaf for scan in plan.scans if scan.ran} == {year.last.suffix}


@pins_in_both(BY_AGENT)
async def test_one_agent_over_a_window_is_read_from_its_index(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    condition = f"{AGENT[table]} = 'agent-8' AND {year.window}"
    plan = await explain(connection, f"SELECT * FROM {table} WHERE {condition}")
    assert plan.pairs == {(year.last.suffix, index)}


@pytest.mark.parametrize("question", OF_WINDOWS)
async def test_a_window_of_keys_is_a_range_of_the_primary_key_in_its_month(
    connection: AsyncConnection, year: Year, question: str
) -> None:
    table, query = OF_WINDOWS[question]
    plan = await explain(connection, query.format(window=year.window))
    assert plan.pairs == {(year.last.suffix, PKEYS[table])}


@BOTH
async def test_the_last_seven_days_by_key_leave_closed_months_out_when_the_query_starts(
    connection: AsyncConnection, year: Year, table: str
) -> None:
    since = "agentobs_uuid7_floor(now() - interval '7 days')"
    query = f"SELECT count(*) FROM {table} WHERE id >= {since}"
    plan = await explain(connection, query, analyze=True)
    ended = year.ended_by(year.now - WEEK)
    assert len(ended) >= 11
    assert not ended & plan.leaves
    assert plan.subplans_removed == len(ended)


@pins(f"{METRIC_INDEX}_feedback_newest")
@pytest.mark.parametrize("question", OF_FEEDBACK)
async def test_feedback_over_a_window_is_read_from_the_index_that_holds_nothing_else(
    connection: AsyncConnection, year: Year, index: str, question: str
) -> None:
    plan = await explain(connection, OF_FEEDBACK[question].format(window=year.window))
    assert plan.pairs == {(year.last.suffix, index)}


@pins(f"{EVENT_INDEX}_context_paths")
async def test_what_a_context_contains_is_found_in_each_month_by_its_paths(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    contained = """'{"user": {"id": 4711}}'"""
    query = f"SELECT * FROM {EVENTS} WHERE context_snapshot @> {contained}"
    plan = await explain(connection, query, analyze=True)
    assert within(plan, year.suffixes) == in_each(year.suffixes, index)
    assert plan.rows > 0


@pins(f"{EVENT_INDEX}_definition")
async def test_the_delete_of_a_definition_looks_for_its_events_by_the_index(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    delete = "WHERE agent_name = 'agent-7' AND agent_version = '1.0.0'"

    async def work() -> None:
        deleted = await connection.execute(text(f"DELETE FROM agent_definitions {delete}"))
        assert deleted.rowcount == 1

    scans = await scans_of(connection, work)
    assert {scan for scan in scans if scan[0] in year.suffixes} == in_each(year.suffixes, index)


@pins_in_both(BRINS)
async def test_ad_hoc_an_instant_that_is_a_constant_leaves_older_months_out_of_the_plan(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    since = year.last.end - timedelta(days=1)
    query = f"SELECT count(*) FROM {table} WHERE {INSTANTS[table]} >= '{since}'"
    plan = await explain(connection, query)
    assert within(plan, year.suffixes) == {(year.last.suffix, index)}


@pins_in_both(BRINS)
async def test_ad_hoc_the_last_seven_days_by_now_read_less_than_a_range_of_a_closed_month(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    """VACUUM leaves the last range of a table to its end, so its pages are looked at."""
    query = f"SELECT count(*) FROM {table} WHERE {INSTANTS[table]} > now() - interval '7 days'"
    ended = year.ended_by(year.now - WEEK - SLACK)
    assert len(ended) >= 11

    plan = await explain(connection, query, analyze=True)
    assert within(plan, ended) == in_each(ended, index)
    blocks = [scan.heap_blocks for scan in plan.scans if scan.leaf in ended]
    assert max(blocks) < BRIN["postgresql_with"]["pages_per_range"]

    await connection.execute(
        text(
            "SELECT brin_summarize_new_values(inhrelid) FROM pg_inherits"
            " WHERE inhparent = CAST(:index AS regclass)"
        ),
        {"index": index},
    )
    plan = await explain(connection, query, analyze=True)
    assert within(plan, ended) == in_each(ended, index)
    assert {scan.heap_blocks for scan in plan.scans if scan.leaf in ended} == {0}


@pins_in_both(PKEYS)
async def test_session_get_looks_into_one_partition(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    (key,) = await keys_of(connection, table, year, 1)
    sent = await sent_by(connection, lambda session: session.get_one(MODELS[table], key))
    plan = await explain(connection, *sent, analyze=True)
    assert plan.pairs == {(year.last.suffix, index)}


@pins_in_both(PKEYS)
async def test_session_get_looks_into_one_partition_by_a_plan_for_any_id_too(
    connection: AsyncConnection, year: Year, table: str, index: str
) -> None:
    (key,) = await keys_of(connection, table, year, 1)
    statement, _ = await sent_by(connection, lambda session: session.get_one(MODELS[table], key))
    await connection.exec_driver_sql(f"PREPARE got (uuid) AS {statement}")
    await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    plan = await explain(connection, f"EXECUTE got ('{key}')", analyze=True)
    assert plan.pairs == {(year.last.suffix, index)}
    assert plan.subplans_removed >= CLOSED


@pins(PKEYS[METRICS])
async def test_the_outcome_of_a_decision_is_written_to_one_partition(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    (key,) = await keys_of(connection, METRICS, year, 1)
    metric = RouterPerformanceMetric
    change = update(metric).where(metric.id == key).values(OUTCOME)
    sent = await sent_by(connection, lambda session: session.execute(change))
    plan = await explain(connection, *sent, analyze=True)
    assert plan.pairs == {(year.last.suffix, index)}


@pins(PKEYS[METRICS])
async def test_outcomes_of_many_decisions_between_two_keys_are_written_to_one_partition(
    connection: AsyncConnection, year: Year, index: str
) -> None:
    keys = await keys_of(connection, METRICS, year, 50)
    listed = ", ".join(f"'{key}'" for key in keys)
    plan = await explain(
        connection,
        f"UPDATE {METRICS} SET selection_validated = true, actual_quality_score = 0.5 "
        f"WHERE id = ANY (ARRAY[{listed}]::uuid[]) AND id BETWEEN '{keys[0]}' AND '{keys[-1]}'",
        analyze=True,
    )
    assert plan.pairs == {(year.last.suffix, index)}
    assert plan.rows == len(keys)


async def test_the_outcome_of_a_decision_touches_no_index(
    connection: AsyncConnection, year: Year
) -> None:
    """A HOT update: the page has room for the new version, and no index has a changed column."""
    metric = RouterPerformanceMetric
    # What the tests before this one took back fills its pages until it may be pruned, which an
    # autoanalyze that is at work puts off.
    keys = await keys_of(connection, METRICS, year, 50, offset=50)
    for key in keys:
        await connection.execute(update(metric).where(metric.id == key).values(OUTCOME))
    counted = await connection.execute(
        text(
            "SELECT pg_stat_get_xact_tuples_updated(CAST(:leaf AS regclass)),"
            " pg_stat_get_xact_tuples_hot_updated(CAST(:leaf AS regclass))"
        ),
        {"leaf": f"{METRICS}_{year.last.suffix}"},
    )
    assert tuple(counted.one()) == (len(keys), len(keys))


async def test_every_index_answers_a_question_of_these(connection: AsyncConnection) -> None:
    names = await connection.scalars(
        text(
            "SELECT indexrelid::regclass::text FROM pg_index"
            " WHERE indrelid = ANY (CAST(CAST(:tables AS text[]) AS regclass[]))"
        ),
        {"tables": list(metadata.tables)},
    )
    assert set(names) == PINNED
