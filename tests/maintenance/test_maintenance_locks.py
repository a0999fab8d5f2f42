"""Maintenance never stands in the way: it asks briefly, gives up, and says who was there."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text
from support.event_rows import EVENTS, insert_row, partition_of
from support.maintenance import (
    FEBRUARY,
    Told,
    add_row,
    add_rows,
    left_beside,
    letting_go,
    maintained,
    middle_of,
    partitions_of,
    steps_left,
    texts_in,
)
from support.models import CANARY
from support.pgbouncer import needs_pgbouncer, pgbouncer
from support.pools import eventually
from support.shell import agentobs, connect_in_transaction, url_of

from agentobs import migrations
from agentobs.errors import (
    AgentobsError,
    MaintenanceBlockedError,
    MaintenanceError,
    PoolerRefusedError,
    ReadOnlyError,
)
from agentobs.maintenance import Policy, locks, maintain, plan_maintenance, release
from agentobs.maintenance.draining import copy_ahead
from agentobs.maintenance.plan import MakeMonth
from agentobs.migrations.lock import lock_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance.locks import TableLock
    from agentobs.maintenance.plan import Step
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

KEY = lock_key("public", migrations.VERSION_TABLE)
# What each kind of step does to a month of two rows.
EXPIRIES = {"rows": "keep", "payload": "keep_payload"}


@asynccontextmanager
async def writing(settings: DatabaseSettings, key: object) -> AsyncIterator[AsyncConnection]:
    """Keep a transaction open that has changed an event."""
    async with connect_in_transaction(settings) as writer:
        await writer.execute(
            text(f"UPDATE {EVENTS} SET user_request = '{CANARY}' WHERE id = '{key}'")
        )
        yield writer


@pytest.mark.parametrize("what", EXPIRIES.values(), ids=EXPIRIES)
async def test_an_open_transaction_is_waited_for_again_and_again_until_patience_ends(
    agentobs_database: DatabaseSettings, look: AsyncConnection, what: str
) -> None:
    key, _ = await add_rows(look, FEBRUARY, 2)
    await maintained(agentobs_database)
    before = await texts_in(look)
    watcher = Told()

    async with writing(agentobs_database, key) as writer:
        pid = await writer.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(MaintenanceBlockedError) as caught:
            await maintained(
                agentobs_database, letting_go(FEBRUARY, what), watcher=watcher, patience_seconds=1
            )

    assert any(f"backend {pid} (" in blocker for blocker in caught.value.blockers)
    assert len(watcher.blockers) > 1
    assert CANARY not in f"{caught.value} {watcher.blockers}"
    assert "UPDATE" not in f"{caught.value} {watcher.blockers}"
    assert await texts_in(look) == before
    assert await left_beside(look) == []


async def test_a_step_that_was_blocked_is_done_once_the_way_is_free(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    key, _ = await add_rows(look, FEBRUARY, 2)
    await maintained(agentobs_database)
    watcher = Told()

    async with writing(agentobs_database, key) as writer:
        run = asyncio.create_task(
            maintained(agentobs_database, letting_go(FEBRUARY), watcher=watcher)
        )
        await eventually(lambda: _is_true(watcher.blockers))
        await writer.rollback()
        await run

    assert await texts_in(look) == []


async def test_who_holds_a_lock_that_is_in_nobodys_way_is_not_told_of(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 2)
    watcher = Told()

    async with (
        connect_in_transaction(agentobs_database) as reader,
        connect_in_transaction(agentobs_database) as blocker,
    ):
        await reader.execute(text(f"SELECT FROM ONLY {EVENTS}"))
        await blocker.execute(text("SET application_name = 'the blocker'"))
        await blocker.execute(text(f"LOCK TABLE ONLY {EVENTS} IN SHARE UPDATE EXCLUSIVE MODE"))
        with pytest.raises(MaintenanceBlockedError):
            await maintained(agentobs_database, watcher=watcher, patience_seconds=0)

    assert len(watcher.blockers) == 1
    assert "(the blocker, idle in transaction, " in watcher.blockers[0]


async def test_a_plan_does_not_wait_for_who_keeps_readers_out(
    agentobs_database: DatabaseSettings,
) -> None:
    async with connect_in_transaction(agentobs_database) as blocker:
        await blocker.execute(text(f"LOCK TABLE {EVENTS}_default"))

        with pytest.raises(MaintenanceBlockedError, match=r"backend \d+"):
            await plan_maintenance(settings=agentobs_database)


async def test_what_is_done_stays_done_when_a_later_step_is_given_up(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_row(look, middle_of(FEBRUARY))
    await maintained(agentobs_database)
    (key,) = await look.scalars(text(f"SELECT id FROM {EVENTS}"))

    async with writing(agentobs_database, key):
        with pytest.raises(MaintenanceBlockedError):
            await maintained(agentobs_database, letting_go(FEBRUARY, ahead=4), patience_seconds=0)

    left = await steps_left(agentobs_database, letting_go(FEBRUARY, ahead=4))
    assert f"make {EVENTS}" not in str(left)
    assert f"detach and drop {EVENTS}_{FEBRUARY.suffix}" in str(left)


async def test_the_command_ends_with_exit_code_3_when_it_gives_up(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_row(look, middle_of(FEBRUARY))
    async with connect_in_transaction(agentobs_database) as blocker:
        await blocker.execute(text(f"LOCK TABLE {EVENTS}_default"))
        arguments = ("maintain", "--apply", "--patience", "0", "--json")
        given_up = await asyncio.to_thread(agentobs, *arguments, settings=agentobs_database)

    assert given_up.returncode == 3, given_up.stderr
    assert "agentobs: others kept locks that maintenance needs for too long" in given_up.stderr
    assert given_up.stdout == ""


async def test_every_lock_that_others_feel_is_asked_for_first_and_in_one_order(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LocksSeen(look)
    monkeypatch.setattr(locks, "_patiently", seen.patiently)
    await add_rows(look, FEBRUARY, 2, user_request="why")

    for policy in (Policy(ahead=4), letting_go(FEBRUARY, "keep_payload"), letting_go(FEBRUARY)):
        await maintained(agentobs_database, policy)

    assert seen.surprises == []
    assert len(seen.orders) > 10
    for order in seen.orders:
        ranks = [RANK.index(table) for table in order if table in RANK]
        assert ranks == sorted(ranks)


RANK = ["agent_definitions", EVENTS, f"{EVENTS}_default", f"{EVENTS}_{FEBRUARY.suffix}"]
_TABLES = text("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")
_FELT = text(
    """
    SELECT relname, mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE pid = pg_backend_pid() AND relkind IN ('r', 'p')
      AND relnamespace = 'public'::regnamespace
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
    """
)


class LocksSeen:
    """Compares the locks that each transaction has at its end with those on its list."""

    def __init__(self, look: AsyncConnection) -> None:
        self._look = look
        self._original = locks._patiently
        self.orders: list[list[str]] = []
        self.surprises: list[tuple[str, str]] = []

    async def patiently(
        self, run: Run, wanted: Sequence[TableLock], attempt: Callable[[], Awaitable[None]]
    ) -> None:
        # What the transaction makes or drops itself, only it sees after that.
        visible = set(await self._look.scalars(_TABLES))

        async def seen() -> None:
            await attempt()
            felt = {(row[0], row[1]) for row in await run.connection.execute(_FELT)}
            known = {(lock.table, _mode_of(lock)) for lock in wanted}
            strongest = {lock.table for lock in wanted if lock.mode == "ACCESS EXCLUSIVE"}
            self.surprises += [
                (table, mode)
                for table, mode in felt - known
                if table in visible - strongest and not table.endswith(("_rewrite", "_changed"))
            ]

        self.orders.append([lock.table for lock in wanted])
        await self._original(run, wanted, seen)


def _mode_of(lock: TableLock) -> str:
    return "".join(word.capitalize() for word in lock.mode.split()) + "Lock"


async def test_two_maintainers_at_once_one_works_and_the_other_ends(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 3)
    before = await texts_in(look)

    plans = await asyncio.gather(
        *(maintain(Policy(ahead=6), settings=agentobs_database) for _ in range(5))
    )

    assert any(plan is not None and plan.steps for plan in plans)
    assert await steps_left(agentobs_database, Policy(ahead=6)) == []
    assert await texts_in(look) == before


async def test_beside_a_migration_maintenance_ends_at_once_and_says_so(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await look.execute(text("SELECT pg_advisory_lock(:key)"), {"key": KEY})

    assert await maintain(Policy(ahead=6), settings=agentobs_database) is None
    with pytest.raises(MaintenanceError, match="run this again after its end"):
        await release("any", settings=agentobs_database)
    busy = agentobs("maintain", "--apply", "--ahead", "6", settings=agentobs_database)
    assert (busy.returncode, busy.stdout) == (0, "")
    assert "another maintenance or migration run is at work" in busy.stderr


async def test_maintenance_of_another_schema_goes_on(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    other = agentobs_database.model_copy(update={"schema_name": "other"})
    await migrations.upgrade(settings=other)
    await look.execute(text("SELECT pg_advisory_lock(:key)"), {"key": KEY})

    await maintained(other, Policy(ahead=6))


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_run_that_ends_early_leaves_no_lock_and_no_transaction(
    agentobs_database: DatabaseSettings, look: AsyncConnection, ends: str
) -> None:
    class Ended(Told):
        def started(self, step: Step) -> None:
            if isinstance(step, MakeMonth):
                if ends == "failed":
                    raise ZeroDivisionError
                task.cancel()

    task = asyncio.create_task(
        maintain(Policy(ahead=6), settings=agentobs_database, watcher=Ended())
    )
    await asyncio.wait({task})

    assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError)
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agentobs maintenance'"
    )

    async def all_are_gone() -> bool:
        return not await look.scalar(others)

    await eventually(all_are_gone)
    await maintained(agentobs_database, Policy(ahead=6))


async def test_what_a_role_has_set_for_services_does_not_hold_for_maintenance(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take_long(run: Run, part: MonthPartition) -> None:
        await run.connection.execute(text("SELECT pg_sleep(2.1)"))
        await copy_ahead(run, part)

    monkeypatch.setattr("agentobs.maintenance.partitions.copy_ahead", take_long)
    name = await look.scalar(text("SELECT current_database()"))
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '2s'",
        "timezone = 'Pacific/Kiritimati'",
        "datestyle = 'SQL, DMY'",
    ):
        await look.execute(text(f"ALTER DATABASE {name} SET {setting}"))
    keys = await add_rows(look, FEBRUARY, 2)

    await maintained(agentobs_database)

    assert {await partition_of(look, key) for key in keys} == {FEBRUARY.suffix}


async def test_a_server_that_takes_no_writes_is_a_clear_error(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    name = await look.scalar(text("SELECT current_database()"))
    await look.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))

    with pytest.raises(ReadOnlyError):
        await maintain(Policy(ahead=6), settings=agentobs_database)
    assert await maintain(settings=agentobs_database) is not None


async def test_a_role_without_the_right_is_a_clear_error_and_nothing_is_done(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    before = await partitions_of(look)
    await look.execute(text("CREATE ROLE onlooker LOGIN PASSWORD 'x'"))
    try:
        await look.execute(text("GRANT pg_read_all_data TO onlooker"))
        settings = agentobs_database.model_copy(
            update={"database_url": _url_as(agentobs_database, "onlooker")}
        )
        with pytest.raises(AgentobsError, match="grant the role that right"):
            await maintain(Policy(ahead=6), settings=settings)
    finally:
        await look.execute(text("DROP ROLE onlooker"))

    assert await partitions_of(look) == before


@needs_pgbouncer
async def test_a_transaction_pooler_is_refused(
    agentobs_server: URL, agentobs_database: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, agentobs_database, mode="transaction") as pooled:
        with pytest.raises(PoolerRefusedError, match="AGENTOBS_MIGRATION_URL"):
            await maintain(settings=pooled)
        direct = pooled.model_copy(update={"migration_url": agentobs_database.database_url})
        await maintained(direct, Policy(ahead=6))


async def test_a_sync_of_definitions_goes_on_beside_maintenance(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    definition = await look.scalar(
        text(
            "INSERT INTO agent_definitions (agent_name, agent_type, yaml_config) "
            "VALUES ('a', 'x', '{}') RETURNING id"
        )
    )
    await add_rows(look, FEBRUARY, 3, agent_definition_id=definition)
    await maintained(agentobs_database)
    stop = asyncio.Event()

    async def sync() -> None:
        while not stop.is_set():
            async with connect_in_transaction(agentobs_database) as other:
                await insert_row(other, agent_definition_id=definition)
                await other.execute(text("UPDATE agent_definitions SET is_active = NOT is_active"))
                await other.commit()

    tasks = [asyncio.create_task(sync()) for _ in range(2)]
    for policy in (letting_go(FEBRUARY, "keep_payload", ahead=6), letting_go(FEBRUARY, ahead=6)):
        await maintained(agentobs_database, policy)
    stop.set()
    await asyncio.gather(*tasks)

    assert f"{EVENTS}_{FEBRUARY.suffix}" not in await partitions_of(look)


def _url_as(settings: DatabaseSettings, user: str) -> SecretStr:
    url = make_url(url_of(settings)).set(username=user, password="x")  # noqa: S106
    return SecretStr(url.render_as_string(hide_password=False).replace("+", "%20"))


async def _is_true(value: object) -> bool:
    return bool(value)
