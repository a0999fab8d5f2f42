"""Workflows as trees that open and close, whatever their shape."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from report.report_rows import NOON, event

from agentobs.analytics.trace_building import build_trace
from agentobs.report.trees import MOST_RUNS, TreeRow, tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentobs.analytics import Trace

WORKFLOW = UUID(int=7)
SHAPES = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([True, False, None])), min_size=1, max_size=300
)


def workflow(shape: Sequence[tuple[int, bool | None]]) -> Trace:
    """Return a trace in which each run is below one of those before it, or a root."""
    rows: list[dict[str, Any]] = []
    for number, (above, success) in enumerate(shape):
        began = NOON + timedelta(milliseconds=number)
        row = event(began, WORKFLOW, f"agent-{number}", success=success)
        # Beyond those that there are, it is a root.
        row["parent_event_id"] = rows[above]["id"] if above < number else None
        rows.append({"session_id": None, "agent_definition_id": None, **_UNKNOWN, **row})
    return build_trace(WORKFLOW, rows, [])


_UNKNOWN = {
    "routing_confidence": None,
    "routing_strategy": None,
    "transformation_duration_ms": None,
    "initialization_duration_ms": None,
}


def chain(length: int, last: bool | None = True) -> Trace:
    return workflow(
        [(max(number - 1, 0), True) for number in range(length - 1)] + [(length - 2, last)]
    )


def levels(rows: Sequence[TreeRow]) -> list[int]:
    """Return how deep each row stands, by what the rows before it opened and closed."""
    level, found = 0, []
    for row in rows:
        found.append(level)
        level += row.opens - row.closes
    assert level == 0
    return found


@given(SHAPES)
@settings(max_examples=100, deadline=None)
def test_what_opens_closes_and_each_run_stands_under_its_parent(
    shape: list[tuple[int, bool | None]],
) -> None:
    found = workflow(shape)
    rows = tree(found)

    assert len(rows) == min(len(found.nodes), MOST_RUNS)
    assert levels(rows) == [min(row.node.depth, 30) for row in rows]
    shown = {row.node.id for row in rows}
    assert all(row.node.parent_id is None or row.node.parent_id in shown for row in rows)


@given(SHAPES)
@settings(max_examples=50, deadline=None)
def test_every_failure_that_has_room_is_shown_and_the_way_to_it_is_open(
    shape: list[tuple[int, bool | None]],
) -> None:
    found = workflow(shape)
    rows = tree(found)

    of_failure = [each for each in found.nodes if each.success is False or each.failed_below]
    shown = {row.node.id for row in rows}
    assert {each.id for each in of_failure[:MOST_RUNS]} <= shown
    assert all(row.is_open for row in rows if row.node.failed_below)


def test_a_failure_behind_a_thousand_runs_is_shown_with_what_is_above_it() -> None:
    found = workflow([(400, True), *[(0, True)] * 1000, (1000, False)])
    rows = tree(found)

    assert len(rows) == MOST_RUNS
    assert [row.node.target_agent for row in rows[-2:]] == ["agent-1000", "agent-1001"]


def test_a_chain_nests_no_deeper_than_browsers_do() -> None:
    above = [400, *range(188)]
    rows = tree(workflow([*((each, True) for each in above), (188, False)]))

    assert len(rows) == 190
    assert max(levels(rows)) == 30
    assert rows[-1].closes == 30


def test_a_workflow_without_runs_is_no_tree() -> None:
    assert tree(workflow([])) == ()
