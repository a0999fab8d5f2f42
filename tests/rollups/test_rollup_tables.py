"""The tables of the rollups are what the code takes them for, wherever they stand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect, text
from support.rollups import (
    EVERYTHING,
    HOUR,
    NOON,
    decision,
    differences,
    fold,
    opened,
    run,
    store_rows,
)
from support.shell import connect

from agentobs import migrations
from agentobs.analytics import agents, routing_summary
from agentobs.errors import DatabaseError
from agentobs.maintenance import maintain
from agentobs.rollups.tables import ATTACHED, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from agentobs import DatabaseSettings

TABLES = metadata.sorted_tables
WAIT = text(
    """
    DO $$
    BEGIN
        WHILE NOT EXISTS (
            SELECT FROM pg_locks WHERE NOT granted AND database =
            (SELECT oid FROM pg_database WHERE datname = current_database())
        ) LOOP
            NULL;
        END LOOP;
    END
    $$
    """
)
"""Until somebody waits for a lock in this database."""


def columns(connection: Connection, table: Table) -> dict[str, tuple[str, bool]]:
    return {
        column["name"]: (column["type"].compile(dialect=connection.dialect), column["nullable"])
        for column in inspect(connection).get_columns(table.name)
        # No client reads the ids of transactions.
        if column["name"] != "closing"
    }


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8")
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_a_table_has_the_columns_that_the_code_knows(
    agentobs_database: DatabaseSettings, table: Table
) -> None:
    async with connect(agentobs_database) as look:
        found = await look.run_sync(columns, table)

    expected = {
        column.name: (column.type.compile(dialect=look.dialect), column.nullable)
        for column in table.columns
        if column.name != "closing"
    }
    # A view knows no NOT NULL.
    if table is ATTACHED:
        assert found.keys() == expected.keys()
    else:
        assert found == expected


async def test_rollups_stand_in_the_schema_of_the_hosts_choice(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    host = agentobs_empty_database.model_copy(update={"schema_name": 'Host "Obs"'})
    await migrations.upgrade(settings=host)
    await store_rows(host, decision(NOON), run(NOON))

    await maintain(settings=host)
    await store_rows(host, decision(NOON, 5))

    async with opened(host) as session:
        assert await differences(session) == []
        await fold(host)
        assert await differences(session) == []
    async with connect(agentobs_empty_database) as look:
        found = await look.execute(
            text('SELECT count(*) FROM "Host ""Obs""".agentobs_routing_rollups')
        )
        assert found.scalar_one() > 0


async def test_who_may_read_the_rows_may_read_what_they_add_up_to(
    agentobs_database: DatabaseSettings, role: str
) -> None:
    await store_rows(agentobs_database, decision(NOON), run(NOON))
    await migrations.downgrade("0007", settings=agentobs_database)
    async with connect(agentobs_database) as look:
        await look.execute(text(f"GRANT SELECT ON router_performance_metrics TO {role}"))
    await migrations.upgrade(settings=agentobs_database)
    await fold(agentobs_database)

    async with opened(agentobs_database) as session:
        await session.execute(text(f"SET ROLE {role}"))
        assert (await routing_summary(session, EVERYTHING)).decisions == 1
        with pytest.raises(DatabaseError, match="permission denied"):
            await agents(session, EVERYTHING)


async def test_who_may_see_some_rows_only_gets_what_these_say(
    agentobs_database: DatabaseSettings, role: str
) -> None:
    await store_rows(
        agentobs_database,
        decision(NOON, selected_agent="mine"),
        decision(NOON, selected_agent="other"),
    )
    await migrations.downgrade("0007", settings=agentobs_database)
    async with connect(agentobs_database) as look:
        for statement in (
            f"GRANT SELECT ON router_performance_metrics TO {role}",
            "ALTER TABLE router_performance_metrics ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON router_performance_metrics USING (selected_agent = 'mine')",
        ):
            await look.execute(text(statement))
    await migrations.upgrade(settings=agentobs_database)
    await fold(agentobs_database)

    async with connect(agentobs_database) as look:
        shared = "agentobs_rollup_state, agentobs_routing_rollups, agentobs_attached_partitions"
        denied = await look.scalar(
            text(f"SELECT has_table_privilege('{role}', 'agentobs_routing_rollups', 'SELECT')")
        )
        assert denied is False
        # An operator may have granted more than the migration did.
        await look.execute(text(f"GRANT SELECT ON {shared} TO {role}"))
    async with opened(agentobs_database) as session:
        assert (await routing_summary(session, EVERYTHING)).decisions == 2
        await session.execute(text(f"SET ROLE {role}"))
        assert (await routing_summary(session, EVERYTHING)).decisions == 1


async def test_a_writer_is_not_ended_by_the_upgrade(agentobs_database: DatabaseSettings) -> None:
    await migrations.downgrade("0007", settings=agentobs_database)
    async with opened(agentobs_database) as writer:
        writer.add(decision(NOON))
        await writer.flush()
        upgrade = asyncio.create_task(migrations.upgrade(settings=agentobs_database))
        async with connect(agentobs_database) as look:
            await look.execute(WAIT)
        writer.add(run(NOON))
        await writer.flush()
        await writer.commit()
        await upgrade

    await fold(agentobs_database)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []


@pytest.fixture
async def role(agentobs_database: DatabaseSettings) -> Any:
    async with connect(agentobs_database) as look:
        await look.execute(text("CREATE ROLE rollup_reader"))
        yield "rollup_reader"
        await look.execute(text("DROP OWNED BY rollup_reader"))
        await look.execute(text("DROP ROLE rollup_reader"))


async def test_the_revision_leaves_nothing_behind(agentobs_database: DatabaseSettings) -> None:
    await store_rows(agentobs_database, decision(NOON), run(NOON + HOUR))
    await fold(agentobs_database)

    await migrations.downgrade("0007", settings=agentobs_database)

    async with connect(agentobs_database) as look:
        left = await look.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relname ~ 'rollup|attached_partitions' "
                "UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ 'rollup' "
                "UNION ALL SELECT proname FROM pg_proc WHERE proname ~ 'rollup'"
            )
        )
        assert list(left) == []
    await migrations.upgrade(settings=agentobs_database)
    await fold(agentobs_database)
    async with opened(agentobs_database) as session:
        assert await differences(session) == []
