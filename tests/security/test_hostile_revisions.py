"""A revision and a role that nothing has are refused; the database stays as it is."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from sqlalchemy import text
from support.hostile import A_FEW, ANY_TEXT, EVERYTHING, UNSTORABLE, nothing_else_changes
from support.shell import connect

from agentobs import DatabaseSettings, migrations
from agentobs.errors import AgentobsError
from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NOWHERE = DatabaseSettings.model_construct()


@pytest.mark.parametrize(
    "asked",
    [migrations.upgrade, migrations.upgrade_online, migrations.downgrade, migrations.stamp],
)
async def test_a_revision_that_nothing_has_is_refused(
    guarded: DatabaseSettings, asked: Callable[..., Awaitable[None]]
) -> None:
    async with nothing_else_changes(guarded):
        for revision in (*A_FEW, *UNSTORABLE, "0008'; DROP TABLE canary.kept; --"):
            with pytest.raises(AgentobsError):
                await asked(revision, settings=guarded)


def test_no_sql_is_written_for_a_revision_that_nothing_has() -> None:
    for revision in EVERYTHING:
        with pytest.raises(AgentobsError):
            migrations.sql(revision, settings=NOWHERE)


@given(revision=ANY_TEXT)
@example(revision="head:base")
@example(revision="@")
@example(revision="head+1")
@example(revision="0001:'; DROP TABLE x; --")
def test_the_sql_of_any_revision_holds_nothing_of_its_name(revision: str) -> None:
    with suppress(AgentobsError):
        written = migrations.sql(revision, settings=NOWHERE)
        assert "DROP TABLE x" not in written


@pytest.mark.parametrize("apply", [False, True])
async def test_a_role_that_nothing_has_is_granted_nothing(
    guarded: DatabaseSettings, apply: bool
) -> None:
    async with nothing_else_changes(guarded):
        for role in (*A_FEW, *UNSTORABLE):
            with pytest.raises(AgentobsError):
                await migrations.grant(writers=[role], apply=apply, settings=guarded)


async def test_a_role_of_any_name_is_granted_what_it_needs(guarded: DatabaseSettings) -> None:
    name = "'; DROP TABLE canary.kept; --\"%s :a\\:b {} }} $$"
    may = text("SELECT has_table_privilege(:role, :table, 'INSERT')")
    async with nothing_else_changes(guarded), connect(guarded) as connection:
        await connection.exec_driver_sql(f"CREATE ROLE {quoted(name)}")
        try:
            await migrations.grant(writers=[name], apply=True, settings=guarded)

            asked = {"agent_transformation_events": True, "canary.kept": False}
            for table, expected in asked.items():
                found = await connection.scalar(may, {"role": name, "table": table})
                assert found is expected
        finally:
            await connection.exec_driver_sql(f"DROP OWNED BY {quoted(name)}")
            await connection.exec_driver_sql(f"DROP ROLE {quoted(name)}")
