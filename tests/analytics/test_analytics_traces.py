"""A workflow is traced from its rows: as a tree, with its decisions and its failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import DateTime, Integer, Uuid, bindparam, text
from sqlalchemy import event as sql_events

from agentobs import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.analytics import Window
from agentobs.analytics.trace_tree import Link
from agentobs.analytics.traces import Trace, TraceNode, session_traces, trace
from agentobs.errors import InvalidValueError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORKFLOW, OTHER, CONVERSATION = UUID(int=1), UUID(int=2), UUID(int=3)
MANY = 10_000
TOLD_BY_USER = "what user 4711 said"


def at(milliseconds: float) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


def event(
    begin: float,
    end: float | None = None,
    *,
    parent: AgentTransformationEvent | None = None,
    agent: str = "a",
    success: bool | None = True,
    **values: Any,
) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        id=uuid7_at(at(begin)),
        event_type="x",
        target_agent=agent,
        parent_event_id=None if parent is None else parent.id,
        started_at=at(begin),
        completed_at=None if end is None else at(end),
        success=success,
        **{"correlation_id": WORKFLOW, **values},
    )


def decision(made: float, agent: str | None, **values: Any) -> RouterPerformanceMetric:
    return RouterPerformanceMetric(
        metric_type="routing_decision",
        selected_agent=agent,
        measured_at=at(made),
        **{"correlation_id": WORKFLOW, **values},
    )


async def add(session: AsyncSession, rows: Sequence[object]) -> None:
    session.add_all(rows)
    await session.flush()


async def test_a_workflow_is_a_tree_with_times(session: AsyncSession) -> None:
    root = event(0, 100, agent="coordinator")
    child = event(10, 70, parent=root, agent="debugger", quality_score=0.75)
    leaf = event(20, 50, parent=child, agent="reader")
    late = event(80, parent=root, agent="writer", total_execution_duration_ms=10)
    await add(session, [root, child, leaf, late, event(0, correlation_id=OTHER)])
    found = await trace(session, WORKFLOW)

    assert (found.correlation_id, found.started_at) == (WORKFLOW, NOON)
    assert (found.total_ms, found.critical_ms) == (100, 100)
    assert (found.running, found.failed, found.is_truncated) == (0, 0, False)
    assert [
        (n.target_agent, n.depth, n.offset_ms, n.total_ms, n.self_ms, n.critical_ms)
        for n in found.nodes
    ] == [
        ("coordinator", 0, 0, 100, 30, 30),
        ("debugger", 1, 10, 60, 30, 30),
        ("reader", 2, 20, 30, 30, 30),
        ("writer", 1, 80, 10, 10, 10),
    ]
    assert found.critical_path == (root.id, child.id, leaf.id, late.id)
    assert found.nodes[0].children == (child.id, late.id)
    assert found.nodes[1].parent_id == found.nodes[1].parent_event_id == root.id
    assert found.nodes[1].quality_score == 0.75


async def test_an_unknown_workflow_is_an_empty_trace(session: AsyncSession) -> None:
    found = await trace(session, uuid4())

    assert (len(found.nodes), len(found.decisions), len(found.failed_branches)) == (0, 0, 0)
    assert (found.started_at, found.total_ms, found.critical_ms) == (None, None, None)
    assert found.critical_path == ()
    assert len(await session_traces(session, uuid4())) == 0


async def test_a_run_that_goes_on_has_no_times(session: AsyncSession) -> None:
    root = event(0, success=None)
    await add(session, [root, event(5, 20, parent=root)])
    found = await trace(session, WORKFLOW)

    assert [(n.total_ms, n.self_ms, n.critical_ms) for n in found.nodes] == [
        (None, None, 5),
        (15, 15, 15),
    ]
    assert (found.running, found.total_ms, found.critical_ms) == (1, 20, 20)


@pytest.mark.parametrize("end", ["infinity", "-infinity"])
async def test_an_end_beyond_all_time_is_none(session: AsyncSession, end: str) -> None:
    await add(session, [event(0, 5)])
    never = text(
        "UPDATE agent_transformation_events SET completed_at = CAST(:end AS text)::timestamptz"
    )
    await session.execute(never, {"end": end})
    (node,) = (await trace(session, WORKFLOW)).nodes

    assert (node.completed_at, node.total_ms) == (None, None)


async def test_a_parent_of_another_workflow_makes_an_orphan(session: AsyncSession) -> None:
    elsewhere = event(0, 9, correlation_id=OTHER)
    await add(session, [elsewhere])
    await add(session, [event(1, 2, parent=elsewhere)])
    (node,) = (await trace(session, WORKFLOW)).nodes

    assert (node.link, node.parent_id, node.parent_event_id) == (Link.ORPHAN, None, elsewhere.id)


async def test_parents_in_a_loop_are_each_told_once(session: AsyncSession) -> None:
    first, second, third = (event(n, 10) for n in range(3))
    alone = event(5, 6)
    await add(session, [first, second, third, alone])
    for child, parent in ((first, third), (second, first), (third, second), (alone, alone)):
        child.parent_event_id = parent.id
    await session.flush()
    nodes = (await trace(session, WORKFLOW)).nodes

    assert [(n.id, n.depth, n.link) for n in nodes] == [
        (first.id, 0, Link.CYCLE),
        (second.id, 1, Link.CHILD),
        (third.id, 2, Link.CHILD),
        (alone.id, 0, Link.CYCLE),
    ]


async def test_a_window_leaves_out_what_lies_before_it(session: AsyncSession) -> None:
    root = event(0, 100)
    await add(session, [root, event(50, 60, parent=root), decision(0, "a"), decision(50, "a")])
    found = await trace(session, WORKFLOW, window=Window(at(10), at(60)))

    assert [node.link for node in found.nodes] == [Link.ORPHAN]
    assert len(found.decisions) == 1


async def test_a_decision_is_tied_to_the_first_run_after_it_of_the_agent_it_selected(
    session: AsyncSession,
) -> None:
    early, late, other = event(0, 9), event(20, 29), event(10, 19, agent="b")
    decisions = [
        decision(0, "a", confidence_score=0.5, total_routing_time_us=7),
        decision(1, "a"),
        decision(2, "a"),
        decision(3, "b"),
        decision(21, "a"),
        decision(22, "c"),
        decision(23, None),
    ]
    await add(session, [early, late, other, *decisions, decision(0, "a", correlation_id=OTHER)])
    found = (await trace(session, WORKFLOW)).decisions

    assert [(d.id, d.run_id) for d in found] == list(
        zip(
            [each.id for each in decisions],
            [early.id, late.id, late.id, other.id, None, None, None],
            strict=True,
        )
    )
    assert (found[0].confidence_score, found[0].total_routing_time_us) == (0.5, 7)


async def test_decisions_are_told_where_no_run_followed(session: AsyncSession) -> None:
    await add(session, [decision(0, "a")])
    found = await trace(session, WORKFLOW)

    assert (len(found.nodes), [d.run_id for d in found.decisions]) == (0, [None])


async def test_a_failed_branch_goes_from_where_it_began_to_where_it_stopped(
    session: AsyncSession,
) -> None:
    root = event(0, 100)
    middle = event(10, 50, parent=root, success=False)
    origin = event(20, 40, parent=middle, success=False, error_type="Timeout", agent="b")
    top = event(60, 70, success=False)
    await add(session, [root, middle, origin, top])
    found = await trace(session, WORKFLOW)

    assert [tuple(branch.model_dump().values()) for branch in found.failed_branches] == [
        (origin.id, middle.id, "b", "Timeout", True),
        (top.id, top.id, "a", None, False),
    ]
    assert [node.failed_below for node in found.nodes] == [2, 1, 0, 0]
    assert found.failed == 3


async def test_whether_a_failure_was_contained_is_open_while_its_caller_runs(
    session: AsyncSession,
) -> None:
    root = event(0, success=None)
    elsewhere = event(0, correlation_id=OTHER)
    await add(session, [root, elsewhere])
    failed = [event(n, n + 1, parent=p, success=False) for n, p in ((1, root), (2, elsewhere))]
    await add(session, failed)
    found = await trace(session, WORKFLOW)

    assert [branch.is_contained for branch in found.failed_branches] == [None, None]


async def test_what_may_hold_data_of_users_is_told_on_request_and_never_shown(
    session: AsyncSession,
) -> None:
    texts: dict[str, Any] = dict.fromkeys(
        ("transformation_reason", "user_request", "error_message"), TOLD_BY_USER
    )
    context = {"said": TOLD_BY_USER, "n": 10**30}
    await add(session, [event(0, 1, context_snapshot=context, session_id=CONVERSATION, **texts)])
    quiet = await trace(session, WORKFLOW)
    loud = await trace(session, WORKFLOW, with_context=True)
    (same,) = await session_traces(session, CONVERSATION, with_context=True)

    assert TOLD_BY_USER not in quiet.model_dump_json()
    assert quiet.nodes[0].context is None
    assert loud == same
    assert loud.nodes[0].context == context
    assert {name: getattr(loud.nodes[0], name) for name in texts} == texts
    assert TOLD_BY_USER not in repr(loud) + str(loud) + repr(loud.nodes)


async def test_of_too_many_events_the_oldest_are_told(session: AsyncSession) -> None:
    await add(session, [event(n, n + 1) for n in range(4)])
    whole, part = [await trace(session, WORKFLOW, most_events=most) for most in (4, 3)]

    assert (len(whole.nodes), whole.is_truncated) == (4, False)
    assert ([node.offset_ms for node in part.nodes], part.is_truncated) == ([0, 1, 2], True)


@pytest.mark.parametrize("question", [trace, session_traces])
async def test_a_bound_below_one_is_refused(session: AsyncSession, question: Any) -> None:
    with pytest.raises(InvalidValueError, match="most_events must be 1 or more"):
        await question(session, WORKFLOW, most_events=0)
    with pytest.raises(InvalidValueError, match="limit must be 1 or more"):
        await session_traces(session, WORKFLOW, limit=0)


async def test_a_conversation_is_its_workflows_newest_first(session: AsyncSession) -> None:
    keys = [UUID(int=n) for n in (10, 12, 11)]
    roots = [event(n, n + 9, correlation_id=k, session_id=CONVERSATION) for n, k in enumerate(keys)]
    await add(session, roots)
    again = event(50, 60, correlation_id=keys[0], session_id=CONVERSATION)
    without = event(4, 5, parent=roots[1], correlation_id=keys[1])
    stranger = event(70, correlation_id=OTHER, session_id=OTHER)
    decisions = [decision(0, "a", correlation_id=key) for key in (*keys, OTHER)]
    await add(session, [again, without, stranger, *decisions])
    found = await session_traces(session, CONVERSATION)

    assert [each.correlation_id for each in found] == [keys[0], keys[2], keys[1]]
    assert list(found) == [await trace(session, each.correlation_id) for each in found]
    assert [len(each.nodes) for each in found] == [2, 1, 2]
    newest = await session_traces(session, CONVERSATION, limit=2)
    assert list(newest) == list(found)[:2]


async def test_a_conversation_can_be_bounded_by_a_window_and_by_events(
    session: AsyncSession,
) -> None:
    for n in range(4):
        await add(session, [event(n, 9, correlation_id=UUID(int=n), session_id=CONVERSATION)])
    held = await session_traces(session, CONVERSATION, window=Window(at(1), at(3)))
    cut = await session_traces(session, CONVERSATION, most_events=3)

    assert [each.correlation_id.int for each in held] == [2, 1]
    assert [(each.correlation_id.int, each.is_truncated) for each in cut] == [
        (3, True),
        (2, True),
        (1, True),
    ]


async def test_a_trace_is_two_statements_however_large(session: AsyncSession) -> None:
    await add(session, [event(n, n + 1, session_id=CONVERSATION) for n in range(50)])
    sent: list[str] = []
    connection = (await session.connection()).sync_connection

    def collect(*arguments: Any) -> None:
        sent.append(arguments[2])

    sql_events.listen(connection, "before_cursor_execute", collect)
    await trace(session, WORKFLOW)
    await session_traces(session, CONVERSATION)
    sql_events.remove(connection, "before_cursor_execute", collect)

    assert len(sent) == 4
    assert not any("context_snapshot" in statement for statement in sent)


# By the server itself: as parameters they would take most of the time.
CHAIN = text(
    """
    INSERT INTO agent_transformation_events (
        id, event_type, correlation_id, target_agent, parent_event_id, started_at, completed_at)
    SELECT keys[n], 'x', :workflow, 'a', keys[n - 1],
           :noon + n * interval '1 ms', :noon + (2 * :many + 1 - n) * interval '1 ms'
    FROM (SELECT array_agg(agentobs_uuid7_at(:noon + n * interval '1 ms') ORDER BY n) AS keys
          FROM generate_series(1, :many) AS n) AS made, generate_series(1, :many) AS n
    """
).bindparams(
    bindparam("noon", NOON, DateTime(timezone=True)),
    bindparam("many", MANY, Integer),
    bindparam("workflow", WORKFLOW, Uuid),
)


async def test_a_chain_of_ten_thousand_is_told_and_written_as_json(session: AsyncSession) -> None:
    await session.execute(CHAIN)
    found = await trace(session, WORKFLOW)

    assert found.nodes[-1].depth == MANY - 1
    assert found.critical_path == tuple(node.id for node in found.nodes)
    assert found.critical_ms == found.total_ms == 2 * MANY - 1
    assert Trace.model_validate_json(found.model_dump_json()) == found


async def test_nodes_are_a_table_of_arrow(session: AsyncSession) -> None:
    pytest.importorskip("pyarrow")
    root = event(0, 9, context_snapshot={"a": 1})
    await add(session, [root, event(1, 2, parent=root), decision(0, "a")])
    found = await trace(session, WORKFLOW, with_context=True)
    table = found.nodes.to("arrow")

    assert table.column_names == list(TraceNode.model_fields)
    assert table.column("link").to_pylist() == ["root", "child"]
    assert table.column("context_json").to_pylist() == ['{"a": 1}', None]
    assert found.to("arrow").num_rows == 1
