"""The functions that keep parents run as their owner: nobody may put his own words in between."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS
from support.shell import connect

from agentobs.errors import ConstraintError

if TYPE_CHECKING:
    from agentobs import DatabaseSettings


async def test_an_operator_of_a_writer_is_not_run_as_the_owner(
    agentobs_database: DatabaseSettings,
) -> None:
    role = f"writer_{uuid4().hex[:8]}"
    async with connect(agentobs_database) as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT CREATE, USAGE ON SCHEMA public TO {role}",
            f"GRANT INSERT ON {EVENTS} TO {role}",
            f"SET ROLE {role}",
            (
                "CREATE FUNCTION public.hijack(uuid[], uuid[]) RETURNS boolean LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'hijacked by %', current_user; END $$"
            ),
            (
                "CREATE OPERATOR public.<> (LEFTARG = uuid[], RIGHTARG = uuid[], "
                "FUNCTION = public.hijack)"
            ),
            (
                "CREATE OPERATOR public.= (LEFTARG = uuid[], RIGHTARG = uuid[], "
                "FUNCTION = public.hijack)"
            ),
        ):
            await connection.execute(text(statement))
        try:
            with pytest.raises(ConstraintError, match="parent_event_id_fkey"):
                await connection.execute(
                    text(
                        f"INSERT INTO {EVENTS} (event_type, correlation_id, target_agent, "
                        "parent_event_id) VALUES ('x', gen_random_uuid(), 'x', gen_random_uuid())"
                    )
                )
        finally:
            for statement in ("RESET ROLE", f"DROP OWNED BY {role}", f"DROP ROLE {role}"):
                await connection.execute(text(statement))


async def test_no_function_that_runs_as_its_owner_looks_into_a_schema_that_others_write_to(
    agentobs_database: DatabaseSettings,
) -> None:
    query = text("SELECT proname, proconfig FROM pg_proc WHERE prosecdef ORDER BY 1")
    async with connect(agentobs_database) as connection:
        found = (await connection.execute(query)).all()

    assert len(found) >= 7
    for name, options in found:
        assert "search_path=pg_catalog, pg_temp" in options, name
