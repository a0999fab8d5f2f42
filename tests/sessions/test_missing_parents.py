"""The error of a refused link says which parents are missing, and nothing else of its detail."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from support.event_rows import EVENTS, PARENT_KEY
from support.leaks import nothing_leaks
from support.models import CANARY, new_event, required_of_an_event

from agentobs import AgentTransformationEvent
from agentobs.bulk import copy_rows
from agentobs.errors import ConstraintError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    Rows = list[dict[str, Any]]
    Write = Callable[[AsyncSession, Rows], Awaitable[object]]

Event = AgentTransformationEvent
DETAIL = "Missing in agent_transformation_events: "
# In the names of tests, which each process must give alike.
KNOWN = "85bf5db5-6bbb-4c49-a088-1f0cc312f63b"


async def by_orm(session: AsyncSession, rows: Rows) -> None:
    session.add_all([Event(**row) for row in rows])
    await session.flush()


async def by_core(session: AsyncSession, rows: Rows) -> None:
    await session.execute(insert(Event).values(rows))


async def by_executemany(session: AsyncSession, rows: Rows) -> None:
    await session.execute(insert(Event), rows)


async def by_copy(session: AsyncSession, rows: Rows) -> None:
    await copy_rows(session, Event, rows)


def children_of(*parents: UUID) -> Rows:
    return [required_of_an_event() | {"parent_event_id": parent} for parent in parents]


async def refused(
    session: AsyncSession, constraint: str, detail: str, sqlstate: str = "23503"
) -> ConstraintError:
    """Let a function of the host raise what it likes."""
    await session.execute(
        text("SELECT set_config('host.detail', :detail, true)"), {"detail": detail}
    )
    raising = (
        "DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'no', "
        f"ERRCODE = '{sqlstate}', CONSTRAINT = '{constraint}', "
        "DETAIL = current_setting('host.detail'); END $$"
    )
    with pytest.raises(ConstraintError) as caught:
        await session.execute(text(raising))
    return caught.value


@pytest.mark.parametrize("write", [by_orm, by_core, by_executemany, by_copy])
async def test_a_parent_that_is_missing_is_named(session: AsyncSession, write: Write) -> None:
    parent, missing = new_event(), uuid4()
    session.add(parent)
    await session.flush()

    with pytest.raises(ConstraintError) as caught:
        await write(session, children_of(parent.id, missing))

    assert isinstance(caught.value, IntegrityError)
    assert caught.value.missing == (missing,)
    assert type(caught.value.missing[0]) is UUID


@pytest.mark.parametrize("write", [by_core, by_copy])
async def test_all_that_a_statement_misses_are_named(session: AsyncSession, write: Write) -> None:
    missing = {uuid4() for _ in range(3)}

    with pytest.raises(ConstraintError) as caught:
        await write(session, children_of(*missing))

    assert set(caught.value.missing) == missing


async def test_at_most_a_hundred_of_them_are_named(session: AsyncSession) -> None:
    missing = {uuid4() for _ in range(150)}

    with pytest.raises(ConstraintError) as caught:
        await copy_rows(session, Event, children_of(*missing))

    assert len(set(caught.value.missing)) == 100
    assert set(caught.value.missing) <= missing


async def test_they_are_there_in_another_process_too(session: AsyncSession) -> None:
    missing = uuid4()
    with pytest.raises(ConstraintError) as caught:
        await by_core(session, children_of(missing))

    received = pickle.loads(pickle.dumps(caught.value))

    assert type(received) is ConstraintError
    assert received.missing == (missing,)


async def test_a_parent_that_is_refused_is_all_that_is_told_of_its_row(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    [row] = children_of(uuid4())

    with nothing_leaks(caplog) as caught:
        await by_core(session, [row | {"user_request": CANARY}])

    assert isinstance(caught.error, ConstraintError)
    assert caught.error.missing == (row["parent_event_id"],)


async def test_another_constraint_has_no_missing_parents(session: AsyncSession) -> None:
    with pytest.raises(ConstraintError) as caught:
        await by_core(session, [required_of_an_event() | {"agent_definition_id": uuid4()}])

    assert caught.value.missing == ()


async def test_an_id_that_is_changed_under_its_children_is_no_missing_parent(
    session: AsyncSession,
) -> None:
    parent = new_event()
    session.add(parent)
    await session.flush()
    await by_core(session, children_of(parent.id))
    renaming = text(f"UPDATE {EVENTS} SET id = agentobs_uuid7_at(now()) WHERE id = :id")

    with pytest.raises(ConstraintError) as caught:
        await session.execute(renaming, {"id": parent.id})

    assert caught.value.constraint == PARENT_KEY
    assert caught.value.missing == ()


@pytest.mark.parametrize(
    "detail",
    [
        f"{DETAIL}{CANARY}",
        f"{DETAIL}{KNOWN}, {CANARY}",
        f"{DETAIL}{KNOWN}\n{CANARY}",
        f"{CANARY}: {DETAIL}{KNOWN}",
        f"Key (parent_event_id)=({KNOWN}) is not present.",
        DETAIL,
    ],
)
async def test_a_detail_that_holds_more_than_ids_is_not_read(
    session: AsyncSession, detail: str
) -> None:
    error = await refused(session, PARENT_KEY, detail)

    assert error.missing == ()
    assert CANARY not in f"{error} {vars(error)}"


@pytest.mark.parametrize(
    ("constraint", "sqlstate"), [("another_fkey", "23503"), (PARENT_KEY, "23514")]
)
async def test_the_detail_of_another_error_is_not_read(
    session: AsyncSession, constraint: str, sqlstate: str
) -> None:
    error = await refused(session, constraint, f"{DETAIL}{uuid4()}", sqlstate)

    assert error.missing == ()
