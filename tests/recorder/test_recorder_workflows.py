from __future__ import annotations

import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.pools import eventually
from support.recorders import decisions, events, strict_recorder
from support.shell import environment

from agentobs import Recorder, Transformation
from agentobs.errors import InvalidValueError
from agentobs.recorder.trace_context import TraceContext, parse_trace_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agentobs import DatabaseSettings

SELDOM = 3600.0
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
KEY = UUID("01890000-0000-7000-8000-000000000001")


async def rows_by_agent(database: DatabaseSettings) -> dict[str, dict[str, Any]]:
    return {row["target_agent"]: row for row in await events(database)}


async def flushed(recorder: Recorder, times: int = 3) -> None:
    """Wait until the writer has tried a few times more."""
    before = recorder.statistics().flushes

    async def has_tried() -> bool:
        return recorder.statistics().flushes >= before + times

    await eventually(has_tried)


OTHER_PROCESS = """
import sys
from agentobs import Recorder
with Recorder(folder=sys.argv[1], flush_interval=0.05, lenient=False) as recorder:
    with recorder.attach(sys.argv[2]):
        recorder.routing_decision(selected_agent="there")
        with recorder.transformation(target_agent="there"):
            with recorder.transformation(target_agent="deeper"):
                pass
"""


async def test_a_workflow_goes_on_in_another_process(
    recorder: Recorder, agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    session = uuid4()
    with recorder.transformation(target_agent="agent-ü;=", session_id=session) as here:
        context = recorder.context()
        assert context is not None
        assert context.isascii()
        # The row of the parent comes when it ends, or is needed; here another process needs it.
        recorder.record(Transformation(target_agent="first", success=True))
        await recorder.abarrier()
        command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "there"), context]
        subprocess.run(command, check=True, env=environment(agentobs_database))
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert rows["there"]["parent_event_id"] == here.id
    assert rows["there"]["source_agent"] == "agent-ü;="
    assert rows["there"]["session_id"] == session
    assert rows["deeper"]["parent_event_id"] == rows["there"]["id"]
    assert {row["correlation_id"] for row in rows.values()} == {here.correlation_id}
    [decision] = await decisions(agentobs_database)
    assert decision["correlation_id"] == here.correlation_id


async def test_outside_of_any_workflow_there_is_nothing_to_tell(recorder: Recorder) -> None:
    assert recorder.context() is None
    with recorder.attach(None):
        assert recorder.context() is None


async def test_a_context_begins_with_a_traceparent(recorder: Recorder) -> None:
    with recorder.transformation(target_agent="agent", correlation_id=UUID(TRACE)) as run:
        context = recorder.context()

    assert context is not None
    version, trace, span, flags = context.partition(";")[0].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span == run.id.hex[16:]


async def test_the_traceparent_of_another_tool_gives_the_workflow_alone(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.attach(TRACEPARENT):
        decision = recorder.routing_decision()
        with recorder.transformation(target_agent="agent"):
            pass
    await recorder.abarrier()

    [row] = await events(agentobs_database)
    assert row["correlation_id"] == decision.correlation_id == UUID(TRACE)
    assert (row["parent_event_id"], row["source_agent"]) == (None, None)
    assert recorder.context() is None


@pytest.mark.parametrize(
    "there",
    [
        TraceContext(KEY),
        TraceContext(KEY, KEY),
        TraceContext(KEY, KEY, KEY, "a;b=c%20 ü\n"),
        TraceContext(KEY, agent="😀" * 255),
        TraceContext(KEY, agent=""),
        TraceContext(UUID(int=2**127), KEY),
    ],
)
def test_a_context_comes_back_as_it_was(there: TraceContext) -> None:
    assert parse_trace_context(str(there)) == there
    assert parse_trace_context(f" {there} ") == there


def test_an_agent_that_no_header_carries_arrives_in_a_form_that_is_stored() -> None:
    assert parse_trace_context(str(TraceContext(KEY, agent="\ud800"))).agent == "?"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nothing",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{TRACEPARENT};parent=1",
        f"{TRACEPARENT};session=",
        f"{TRACEPARENT};agent={'x' * 5000}",
        TRACEPARENT.encode(),
        7,
    ],
)
def test_what_is_no_context_is_refused(tmp_path: Path, wrong: Any) -> None:
    recorder = Recorder(folder=tmp_path, lenient=False)

    with pytest.raises(InvalidValueError, match="context"), recorder.attach(wrong):
        pytest.fail("the block ran")


async def test_a_lenient_recorder_goes_on_without_a_context_that_is_none(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path, lenient=True) as recorder,
        recorder.attach("nothing"),
    ):
        assert recorder.context() is None
        assert recorder.statistics().refused == {"transformation": 1}


async def test_what_is_attached_replaces_what_is_around_it_and_ends_with_the_block(
    recorder: Recorder,
) -> None:
    with recorder.transformation(target_agent="agent") as run:
        around = recorder.context()
        with recorder.attach(TRACEPARENT):
            assert recorder.routing_decision().correlation_id == UUID(TRACE)
        assert recorder.context() == around
        assert recorder.routing_decision().correlation_id == run.correlation_id


def in_a_thread(work: Callable[[], None]) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


def child_elsewhere(recorder: Recorder, context: str | None) -> None:
    """Record a run, a run in it, and one that has nothing to do with them, as another host does."""

    def work() -> None:
        with recorder.attach(context), recorder.transformation(target_agent="child"):
            recorder.record(Transformation(target_agent="grandchild", success=True))
        recorder.record(Transformation(target_agent="stranger", success=True))

    in_a_thread(work)


async def test_a_child_waits_for_the_row_of_its_parent_and_the_rest_does_not(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path / "a", flush_interval=SELDOM) as parents,
        strict_recorder(agentobs_database, tmp_path / "b") as children,
    ):
        with parents.transformation(target_agent="parent") as parent:
            child_elsewhere(children, parents.context())

            async def is_the_rest_there() -> bool:
                return bool(await events(agentobs_database))

            await eventually(is_the_rest_there)
            await flushed(children)
            assert [*await rows_by_agent(agentobs_database)] == ["stranger"]
            assert children.statistics().pending == 2
        await parents.abarrier()
        await children.abarrier()
        rows = await rows_by_agent(agentobs_database)

    assert rows["child"]["parent_event_id"] == parent.id
    assert rows["grandchild"]["parent_event_id"] == rows["child"]["id"]
    assert children.statistics().orphaned == 0
    assert children.statistics().written == {"transformation": 3}


async def test_what_comes_later_than_its_waiting_parent_waits_with_it(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with (
        strict_recorder(agentobs_database, tmp_path / "a", flush_interval=SELDOM) as parents,
        strict_recorder(agentobs_database, tmp_path / "b") as children,
    ):
        with parents.transformation(target_agent="parent") as parent:
            context = parents.context()
            with children.attach(context), children.transformation(target_agent="child") as child:
                below = children.context()
            await flushed(children)
            with children.attach(below), children.transformation(target_agent="grandchild"):
                pass
            await flushed(children)
            assert await events(agentobs_database) == []
        await parents.abarrier()
        await children.abarrier()
        rows = await rows_by_agent(agentobs_database)

    assert rows["child"]["parent_event_id"] == parent.id
    assert rows["grandchild"]["parent_event_id"] == child.id


async def test_without_its_parent_a_child_is_written_in_the_end_and_counted(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    nowhere = str(TraceContext(uuid4(), uuid4(), agent="gone"))
    with strict_recorder(agentobs_database, tmp_path, parent_wait=0.2) as recorder:
        child_elsewhere(recorder, nowhere)
        await recorder.abarrier()
        rows = await rows_by_agent(agentobs_database)
        statistics = recorder.statistics()

    assert rows["child"]["parent_event_id"] is None
    assert rows["child"]["source_agent"] == "gone"
    assert rows["grandchild"]["parent_event_id"] == rows["child"]["id"]
    assert statistics.orphaned == 1
    assert statistics.written == {"transformation": 3}
    assert (statistics.pending, statistics.completeness) == (0, 1)


async def test_many_children_of_many_missing_parents_are_written_and_counted_in_the_end(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"parent_wait": 0.2, "flush_interval": SELDOM}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        for number in range(450):
            recorder.record(
                Transformation(
                    target_agent="agent",
                    parent_event_id=uuid4() if number % 3 else None,
                    success=True,
                )
            )

    rows = await events(agentobs_database)
    assert len(rows) == 450
    assert {row["parent_event_id"] for row in rows} == {None}
    assert recorder.statistics().orphaned == 300


async def test_a_recorder_that_is_closed_lets_no_child_wait(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    nowhere = str(TraceContext(uuid4(), uuid4()))
    with strict_recorder(agentobs_database, tmp_path, parent_wait=600) as recorder:
        child_elsewhere(recorder, nowhere)
        await flushed(recorder)

    rows = await rows_by_agent(agentobs_database)
    assert rows["grandchild"]["parent_event_id"] == rows["child"]["id"]
    assert recorder.statistics().orphaned == 1


async def test_a_run_that_goes_on_waits_for_its_parent_and_is_completed_all_the_same(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"announce_after": 0, "parent_wait": 600}
    with (
        strict_recorder(agentobs_database, tmp_path / "a", flush_interval=SELDOM) as parents,
        strict_recorder(agentobs_database, tmp_path / "b", **options) as children,
    ):
        with parents.transformation(target_agent="parent") as parent:
            with children.transformation(target_agent="child") as child:
                await flushed(children)
            await flushed(children)
        await parents.abarrier()
        await children.abarrier()
        rows = await rows_by_agent(agentobs_database)

    assert rows["child"]["id"] == child.id
    assert rows["child"]["parent_event_id"] == parent.id
    assert rows["child"]["event_type"] == "transformation_complete"
    assert children.statistics().written == {"transformation": 1}


async def test_a_process_that_ends_before_the_run_that_called_it_keeps_its_parent(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path / "here") as recorder:
        with recorder.transformation(target_agent="here") as run:
            header = recorder.context()
            # Its row is written soon, though it ends in a long time.
            await _ended_elsewhere(agentobs_database, tmp_path / "there", header)
        statistics = recorder.statistics()

    rows = await rows_by_agent(agentobs_database)
    assert rows["there"]["parent_event_id"] == run.id
    assert rows["here"]["event_type"] == "transformation_complete"
    assert statistics.orphaned == 0


async def _ended_elsewhere(database: DatabaseSettings, folder: Path, header: str | None) -> None:
    with strict_recorder(database, folder) as other, other.attach(header):
        with other.transformation(target_agent="there"):
            pass
        report = await other.aclose()
    assert report.is_complete
    assert other.statistics().orphaned == 0
