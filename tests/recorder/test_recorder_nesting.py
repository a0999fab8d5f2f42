from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.recorders import events, strict_recorder

from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder
    from agentobs.recorder import Run

NOON = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)


async def rows_by_agent(database: DatabaseSettings) -> dict[str, dict[str, Any]]:
    return {row["target_agent"]: row for row in await events(database)}


async def only_row(recorder: Recorder, database: DatabaseSettings) -> dict[str, Any]:
    await recorder.abarrier()
    [row] = await events(database)
    return row


async def test_runs_nest_by_the_block_they_are_in(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    session = uuid4()
    with recorder.transformation(target_agent="outer", session_id=session) as outer:
        async with recorder.transformation(target_agent="inner") as inner:
            with recorder.transformation(target_agent="innermost"):
                pass
        with recorder.transformation(target_agent="second"):
            pass
    with recorder.transformation(target_agent="elsewhere"):
        pass
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    parents = {agent: row["parent_event_id"] for agent, row in rows.items()}
    assert parents == {
        "outer": None,
        "inner": outer.id,
        "innermost": inner.id,
        "second": outer.id,
        "elsewhere": None,
    }
    assert rows["innermost"]["source_agent"] == "inner"
    family = [rows[agent] for agent in ("outer", "inner", "innermost", "second")]
    assert {row["correlation_id"] for row in family} == {outer.correlation_id}
    assert {row["session_id"] for row in family} == {session}
    assert rows["elsewhere"]["correlation_id"] != outer.correlation_id


async def test_tasks_nest_each_in_the_run_that_started_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def work(number: int) -> None:
        async with recorder.transformation(target_agent=f"task-{number}"):
            await asyncio.sleep(0)
            with recorder.transformation(target_agent=f"step-{number}"):
                await asyncio.sleep(0)

    with recorder.transformation(target_agent="outer") as outer:
        await asyncio.gather(*map(work, range(5)))
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    for number in range(5):
        assert rows[f"task-{number}"]["parent_event_id"] == outer.id
        assert rows[f"step-{number}"]["parent_event_id"] == rows[f"task-{number}"]["id"]


async def test_a_thread_goes_on_in_the_run_whose_context_it_was_given(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    def work(context: str | None) -> None:
        with recorder.attach(context), recorder.transformation(target_agent="thread"):
            pass
        with recorder.transformation(target_agent="after"):
            pass

    with recorder.transformation(target_agent="outer") as outer:
        thread = Thread(target=work, args=[recorder.context()])
        thread.start()
        thread.join()
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert rows["thread"]["parent_event_id"] == outer.id
    assert rows["thread"]["source_agent"] == "outer"
    assert rows["after"]["parent_event_id"] is None


async def test_a_run_of_another_workflow_has_no_parent_here(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    with recorder.transformation(target_agent="outer", session_id=uuid4()) as outer:
        with recorder.transformation(target_agent="given", correlation_id=UUID(int=7)) as given:
            assert recorder.routing_decision().correlation_id == UUID(int=7)
        same = outer.correlation_id
        with recorder.transformation(target_agent="same", correlation_id=same):
            pass
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert given.correlation_id == UUID(int=7)
    row = rows["given"]
    assert (row["parent_event_id"], row["session_id"], row["source_agent"]) == (None,) * 3
    assert rows["same"]["parent_event_id"] == outer.id


async def test_a_run_belongs_to_the_block_around_it_though_its_decision_was_made_before(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    decision = recorder.routing_decision(selected_agent="inner", strategy="fuzzy")
    with (
        recorder.transformation(target_agent="outer") as outer,
        recorder.transformation(target_agent="inner", decision=decision) as inner,
    ):
        pass
    with recorder.transformation(target_agent="alone", decision=decision) as alone:
        pass
    await recorder.abarrier()

    rows = await rows_by_agent(agentobs_database)
    assert rows["inner"]["parent_event_id"] == outer.id
    assert inner.correlation_id == outer.correlation_id
    assert rows["inner"]["routing_strategy"] == "fuzzy"
    assert alone.correlation_id == decision.correlation_id


async def test_what_a_record_says_wins_over_what_is_around_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    session = uuid4()
    with recorder.transformation(target_agent="first") as first:
        pass
    with (
        recorder.transformation(target_agent="outer", session_id=uuid4()),
        recorder.transformation(
            target_agent="inner",
            source_agent="somebody",
            session_id=session,
            parent_event_id=first.id,
        ),
    ):
        pass
    await recorder.abarrier()

    row = (await rows_by_agent(agentobs_database))["inner"]
    assert row["source_agent"] == "somebody"
    assert (row["session_id"], row["parent_event_id"]) == (session, first.id)


@contextmanager
def in_a_generator(recorder: Recorder) -> Iterator[Run]:
    with recorder.transformation(target_agent="agent-debug") as run:
        yield run


async def test_a_run_may_be_left_in_another_context_than_it_was_entered_in(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    block = in_a_generator(recorder)
    contextvars.copy_context().run(block.__enter__)
    assert recorder.context() is None

    block.__exit__(None, None, None)

    assert (await only_row(recorder, agentobs_database))["success"] is True


async def test_an_attached_context_may_be_left_in_another_one(recorder: Recorder) -> None:
    with recorder.transformation(target_agent="agent-debug"):
        block = recorder.attach(recorder.context())
    contextvars.copy_context().run(block.__enter__)

    block.__exit__(None, None, None)

    assert recorder.context() is None


@pytest.mark.parametrize("is_lenient", [True, False])
async def test_a_run_is_entered_once(
    agentobs_database: DatabaseSettings, tmp_path: Path, is_lenient: bool
) -> None:
    options = {"lenient": is_lenient, "announce_after": 0}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        with recorder.transformation(target_agent="outer") as run:
            for _ in range(2):
                with entered_again(run, is_lenient=is_lenient):
                    pass
            assert recorder.context() is not None
        with entered_again(run, is_lenient=is_lenient):
            pass
        assert recorder.context() is None
        row = await only_row(recorder, agentobs_database)
    assert row["event_type"] == "transformation_complete"
    assert recorder.statistics().accepted == {"transformation": 1}
    assert recorder.statistics().refused == ({"transformation": 3} if is_lenient else {})


@contextmanager
def entered_again(run: Run, *, is_lenient: bool) -> Iterator[None]:
    if is_lenient:
        with run:
            yield
        return
    with pytest.raises(InvalidValueError, match="entered"):
        run.__enter__()
    yield


async def test_children_and_parents_are_stored_whatever_the_size_of_a_flush(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    def nest(depth: int) -> None:
        with recorder.transformation(target_agent=f"{depth}"):
            if depth:
                nest(depth - 1)

    with strict_recorder(agentobs_database, tmp_path, flush_rows=3, delivery="block") as recorder:
        for _ in range(20):
            nest(10)

    rows = await events(agentobs_database)
    assert len(rows) == 20 * 11
    assert sum(row["parent_event_id"] is None for row in rows) == 20
    assert {row["event_type"] for row in rows} == {"transformation_complete"}
    assert recorder.statistics().orphaned == 0


async def test_a_stream_that_is_left_early_is_no_parent_of_what_comes_after_it(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def stream() -> AsyncGenerator[int, None]:
        with recorder.transformation(target_agent="streams"):
            for number in range(10):
                yield number

    async for _ in (generator := stream()):
        break
    # As the event loop does it: in another context.
    await asyncio.create_task(generator.aclose())
    with recorder.transformation(target_agent="after"):
        pass
    recorder.barrier()

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert rows["after"]["parent_event_id"] is None
    assert rows["after"]["source_agent"] is None
    assert rows["after"]["correlation_id"] != rows["streams"]["correlation_id"]


async def test_a_task_that_outlives_the_run_that_started_it_is_its_child(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    has_ended = asyncio.Event()

    async def go_on() -> None:
        await has_ended.wait()
        with recorder.transformation(target_agent="inner"):
            pass

    with recorder.transformation(target_agent="outer") as outer:
        task = asyncio.create_task(go_on())
    has_ended.set()
    await task
    recorder.barrier()

    rows = {row["target_agent"]: row for row in await events(agentobs_database)}
    assert rows["inner"]["parent_event_id"] == outer.id
