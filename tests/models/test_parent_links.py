"""The link of an event to its parent is kept as a foreign key would keep it, by triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from support.event_rows import EVENTS, FEBRUARY, MARCH, PARENT_KEY, insert_child, insert_row
from support.leaks import nothing_leaks
from support.models import CANARY, new_event, required_of_an_event
from support.server_versions import needs_server
from support.shell import psql

from agentobs import AgentTransformationEvent
from agentobs.bulk import copy_rows
from agentobs.errors import ConstraintError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from agentobs import DatabaseSettings

    Write = Callable[[AsyncSession, dict[str, Any]], Awaitable[object]]

Event = AgentTransformationEvent
SQL = (
    f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent, parent_event_id, "
    "user_request) VALUES (:id, 'x', :correlation_id, 'x', :parent_event_id, :user_request)"
)
UPSERT = f"{SQL} ON CONFLICT (id) DO UPDATE SET parent_event_id = excluded.parent_event_id"
MERGE = f"""
    MERGE INTO {EVENTS} e USING (SELECT CAST(:id AS uuid) AS id) s ON e.id = s.id
    WHEN MATCHED THEN UPDATE SET parent_event_id = :parent_event_id
    WHEN NOT MATCHED THEN INSERT
        (id, event_type, correlation_id, target_agent, parent_event_id, user_request)
        VALUES (s.id, 'x', :correlation_id, 'x', :parent_event_id, :user_request)
"""


async def by_orm(session: AsyncSession, row: dict[str, Any]) -> None:
    session.add(Event(**row))
    await session.flush()


async def by_core(session: AsyncSession, row: dict[str, Any]) -> None:
    await session.execute(insert(Event).values(row))


async def by_executemany(session: AsyncSession, row: dict[str, Any]) -> None:
    others = [row | {"id": uuid7_at(MARCH), "parent_event_id": None} for _ in range(3)]
    await session.execute(insert(Event), [*others, row])


async def by_copy(session: AsyncSession, row: dict[str, Any]) -> None:
    await copy_rows(session, Event, [row])


async def by_sql(session: AsyncSession, row: dict[str, Any]) -> None:
    await session.execute(text(SQL), row)


async def by_upsert_of_a_new_row(session: AsyncSession, row: dict[str, Any]) -> None:
    await session.execute(text(UPSERT), row)


async def by_upsert_of_an_old_row(session: AsyncSession, row: dict[str, Any]) -> None:
    await session.execute(text(SQL), row | {"parent_event_id": None})
    await session.execute(text(UPSERT), row)


async def by_update(session: AsyncSession, row: dict[str, Any]) -> None:
    await session.execute(text(SQL), row | {"parent_event_id": None})
    change = update(Event).where(Event.id == row["id"])
    await session.execute(change.values(parent_event_id=row["parent_event_id"]))


async def by_merge(session: AsyncSession, row: dict[str, Any]) -> None:
    await needs_server(session, 15, "MERGE is there")
    await session.execute(text(MERGE), row)


WRITES: list[Write] = [
    by_orm,
    by_core,
    by_executemany,
    by_copy,
    by_sql,
    by_upsert_of_a_new_row,
    by_upsert_of_an_old_row,
    by_update,
    by_merge,
]


def child_of(parent: UUID | None, **values: Any) -> dict[str, Any]:
    row = {"id": uuid7_at(MARCH), "started_at": MARCH, "user_request": None}
    return required_of_an_event() | row | {"parent_event_id": parent} | values


def for_sql(row: dict[str, Any], write: Write) -> dict[str, Any]:
    """Leave out the instant, which the SQL above does not name."""
    if write in {by_orm, by_core, by_executemany, by_copy}:
        return row
    kept = {"id", "correlation_id", "parent_event_id", "user_request"}
    return {name: row[name] for name in kept} | {"id": uuid4()}


async def add_event(session: AsyncSession, **values: Any) -> UUID:
    event = new_event(**values)
    session.add(event)
    await session.flush()
    return event.id


async def link_of(session: AsyncSession, key: UUID) -> UUID | None:
    return await session.scalar(select(Event.parent_event_id).where(Event.id == key))


@pytest.mark.parametrize("write", WRITES)
async def test_a_parent_that_is_there_is_taken(session: AsyncSession, write: Write) -> None:
    parent = await add_event(session, started_at=FEBRUARY)
    row = for_sql(child_of(parent), write)

    await write(session, row)

    assert await link_of(session, row["id"]) == parent


@pytest.mark.parametrize("write", WRITES)
async def test_a_parent_that_is_missing_is_refused_like_by_a_foreign_key(
    session: AsyncSession, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    row = for_sql(child_of(uuid4(), user_request=CANARY), write)

    with nothing_leaks(caplog) as caught:
        await write(session, row)

    error = caught.error
    assert isinstance(error, ConstraintError)
    assert isinstance(error, IntegrityError)
    assert (error.sqlstate, error.constraint) == ("23503", PARENT_KEY)
    assert (error.table, error.column) == (EVENTS, "parent_event_id")
    assert str(row["parent_event_id"]) not in f"{error!r} {error}"
    assert "write the parent event first" in str(error)


async def test_up_to_a_hundred_missing_parents_are_told_in_the_servers_detail(
    agentobs_database: DatabaseSettings,
) -> None:
    assert agentobs_database.database_url is not None
    connection = await asyncpg.connect(agentobs_database.database_url.get_secret_value())
    missing = [uuid4() for _ in range(150)]
    statement = (
        f"INSERT INTO {EVENTS} (event_type, correlation_id, target_agent, parent_event_id) "
        "SELECT 'x', gen_random_uuid(), 'x', parent FROM unnest($1::uuid[]) AS parent"
    )
    with pytest.raises(asyncpg.ForeignKeyViolationError) as caught:
        await connection.execute(statement, missing)
    await connection.close()

    told = caught.value.detail.partition(": ")[2].split(", ")
    assert len(told) == 100
    assert set(told) <= {str(each) for each in missing}
    assert caught.value.schema_name == "public"


async def test_rows_of_one_statement_may_be_each_others_parents(session: AsyncSession) -> None:
    first, second = uuid7_at(FEBRUARY), uuid7_at(MARCH)
    rows = [child_of(second, id=first, started_at=FEBRUARY), child_of(first, id=second)]

    await copy_rows(session, Event, rows)

    assert await link_of(session, first) == second


async def test_an_event_may_be_its_own_parent(session: AsyncSession) -> None:
    key = uuid7_at(MARCH)

    await by_core(session, child_of(key, id=key))

    assert await link_of(session, key) == key


async def test_a_parent_that_a_conflict_keeps_out_is_still_the_parent(
    session: AsyncSession,
) -> None:
    parent = child_of(None)
    await by_core(session, parent)
    rows = [parent, child_of(parent["id"])]

    await session.execute(postgresql.insert(Event).values(rows).on_conflict_do_nothing())

    assert await link_of(session, rows[1]["id"]) == parent["id"]


async def test_a_deleted_parent_is_forgotten_by_its_children_in_every_partition(
    session: AsyncSession,
) -> None:
    parent = await add_event(session, started_at=FEBRUARY)
    instants: list[dict[str, Any]] = [{"started_at": FEBRUARY}, {"started_at": MARCH}, {}]
    children = [await add_event(session, parent_event_id=parent, **each) for each in instants]
    children.append(await add_event(session, parent_event_id=parent, id=uuid4()))
    grandchild = await add_event(session, parent_event_id=children[0])

    await session.execute(delete(Event).where(Event.id == parent))

    assert [await link_of(session, child) for child in children] == [None] * 4
    assert await link_of(session, grandchild) == children[0]


async def test_a_parent_that_the_session_deletes_is_forgotten_without_loading_children(
    session: AsyncSession,
) -> None:
    parent = new_event()
    session.add(parent)
    await session.flush()
    child = await add_event(session, parent_event_id=parent.id)

    await session.delete(parent)
    await session.flush()

    assert await link_of(session, child) is None


async def test_a_parent_and_its_children_are_deleted_together(session: AsyncSession) -> None:
    parent = await add_event(session)
    child = await add_event(session, parent_event_id=parent)

    await session.execute(delete(Event).where(Event.id.in_([parent, child])))

    assert await link_of(session, child) is None


async def test_a_child_of_a_parent_deleted_in_the_same_transaction_is_refused(
    session: AsyncSession,
) -> None:
    parent = await add_event(session)
    await session.execute(delete(Event).where(Event.id == parent))

    with pytest.raises(ConstraintError):
        await by_core(session, child_of(parent))


async def test_a_parent_that_is_deleted_and_written_again_may_be_named_again(
    session: AsyncSession,
) -> None:
    parent = child_of(None)
    await by_core(session, parent)
    await session.execute(delete(Event).where(Event.id == parent["id"]))
    await by_core(session, parent)
    child = child_of(parent["id"])

    await by_core(session, child)

    assert await link_of(session, child["id"]) == parent["id"]


async def test_the_id_of_a_parent_is_not_changed_under_its_children(
    session: AsyncSession,
) -> None:
    parent = await add_event(session)
    await add_event(session, parent_event_id=parent)

    with pytest.raises(ConstraintError) as caught:
        await session.execute(update(Event).where(Event.id == parent).values(id=uuid4()))

    assert caught.value.constraint == PARENT_KEY


async def test_the_id_of_a_parent_is_changed_together_with_its_childrens_links(
    session: AsyncSession,
) -> None:
    parent, new = await add_event(session), uuid4()
    child = await add_event(session, parent_event_id=parent)
    both = text(
        f"UPDATE {EVENTS} SET id = CASE id WHEN :parent THEN CAST(:new AS uuid) ELSE id END, "
        "parent_event_id = CASE id WHEN :child THEN CAST(:new AS uuid) ELSE parent_event_id END"
    )

    await session.execute(both, {"parent": parent, "child": child, "new": new})

    assert await link_of(session, child) == new


async def test_a_child_that_moves_to_another_partition_keeps_its_link(
    session: AsyncSession,
) -> None:
    parent = await add_event(session)
    child = await add_event(session, parent_event_id=parent)
    moved = uuid4()

    await session.execute(update(Event).where(Event.id == child).values(id=moved))

    assert await link_of(session, moved) == parent


async def test_an_update_of_other_columns_does_not_look_at_the_parent_again(
    agentobs_engine: AsyncEngine,
) -> None:
    async with agentobs_engine.connect() as connection:
        parent = await insert_row(connection)
        child = await insert_child(connection, parent)
        # Gone without a trigger, as an expired month is.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text(f"DELETE FROM {EVENTS} WHERE id = :id"), {"id": parent})
        await connection.execute(text("SET LOCAL session_replication_role = DEFAULT"))

        await connection.execute(text(f"UPDATE {EVENTS} SET success = true"))
        same = text(f"UPDATE {EVENTS} SET parent_event_id = parent_event_id RETURNING id")
        assert (await connection.scalars(same)).all() == [child]


async def test_a_parent_of_a_month_that_expired_may_be_named(session: AsyncSession) -> None:
    gone = uuid7_at(FEBRUARY)
    expired = text(
        "INSERT INTO agentobs_partitions (table_name, month, lower_id, upper_id, expired_at) "
        f"VALUES ('{EVENTS}', '2024-02-01', agentobs_uuid7_floor('2024-02-01 00:00+00'), "
        "agentobs_uuid7_floor('2024-03-01 00:00+00'), now())"
    )
    await session.execute(expired)
    child = child_of(gone)

    await by_core(session, child)

    assert await link_of(session, child["id"]) == gone
    with pytest.raises(ConstraintError):
        await by_core(session, child_of(uuid7_at(MARCH)))


async def _as_writer(connection: AsyncConnection) -> None:
    role = f"writer_{uuid4().hex}"
    await connection.execute(text(f"CREATE ROLE {role}"))
    await connection.execute(text(f"GRANT INSERT ON {EVENTS} TO {role}"))
    await connection.execute(text(f"SET LOCAL ROLE {role}"))


async def test_a_role_that_may_only_insert_writes_a_link(agentobs_engine: AsyncEngine) -> None:
    async with agentobs_engine.connect() as connection:
        parent = await insert_row(connection)
        await _as_writer(connection)
        await connection.execute(text(_insert(parent)))
        with pytest.raises(ConstraintError) as caught:
            await connection.execute(text(_insert(uuid4())))

    assert caught.value.constraint == PARENT_KEY


async def test_nobody_calls_the_functions_by_themselves(agentobs_engine: AsyncEngine) -> None:
    async with agentobs_engine.connect() as connection:
        await _as_writer(connection)
        may = text(
            "SELECT proname FROM pg_proc WHERE prosecdef AND proname LIKE 'agentobs%' "
            "AND has_function_privilege(oid, 'EXECUTE')"
        )
        assert (await connection.scalars(may)).all() == []


def _insert(parent: UUID, schema: str = "public") -> str:
    return (
        f"INSERT INTO {schema}.{EVENTS} (event_type, correlation_id, target_agent, "
        f"parent_event_id) VALUES ('x', gen_random_uuid(), 'x', '{parent}');\n"
    )


async def test_links_are_kept_whatever_the_search_path_is(
    agentobs_database: DatabaseSettings, agentobs_engine: AsyncEngine
) -> None:
    async with agentobs_engine.begin() as connection:
        parent = await insert_row(connection)
    nowhere = "SET search_path = '';\n"
    forget = f"DELETE FROM public.{EVENTS} WHERE id = '{parent}';\n"

    refused = psql(agentobs_database, nowhere + _insert(uuid4()))
    done = psql(agentobs_database, nowhere + _insert(parent) + forget)

    assert PARENT_KEY in refused.stderr
    assert done.returncode == 0, done.stderr
    async with agentobs_engine.connect() as connection:
        assert (await connection.scalars(select(Event.parent_event_id))).all() == [None]
