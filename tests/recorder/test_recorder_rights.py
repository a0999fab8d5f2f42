"""A role that may not do all of it: what it may do goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import make_url, text
from support.pools import eventually
from support.recorders import PATIENCE, decisions, strict_recorder
from support.shell import connect

from agentobs.recorder.dead_letters.writing import read_dead_letters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agentobs import DatabaseSettings

CHANGES_SCHEMA = True
Rights = Callable[[str], Awaitable["DatabaseSettings"]]
TABLES = "agent_transformation_events, router_performance_metrics"


@pytest_asyncio.fixture
async def as_role(
    agentobs_database: DatabaseSettings,
) -> AsyncIterator[Rights]:
    name = f"agentobs_writer_{uuid4().hex}"
    url = agentobs_database.database_url
    assert url is not None
    found = make_url(url.get_secret_value()).set(username=name, password="unsaid")  # noqa: S106 (of this test alone)
    settings = agentobs_database.model_copy(
        update={"database_url": SecretStr(found.render_as_string(hide_password=False))}
    )
    async with connect(agentobs_database) as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'unsaid'"))
        await connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {name}"))

    async def with_rights(rights: str) -> DatabaseSettings:
        async with connect(agentobs_database) as connection:
            await connection.execute(text(f"GRANT {rights} ON {TABLES} TO {name}"))
        return settings

    yield with_rights
    async with connect(agentobs_database) as connection:
        await connection.execute(text(f"DROP OWNED BY {name}"))
        await connection.execute(text(f"DROP ROLE {name}"))


async def test_a_role_that_may_not_look_for_a_decision_writes_the_others(
    agentobs_database: DatabaseSettings,
    as_role: Rights,
    tmp_path: Path,
) -> None:
    settings = await as_role("INSERT")
    with strict_recorder(settings, tmp_path, outcome_wait=0.5) as recorder:
        first = recorder.routing_decision(selected_agent="first")
        recorder.barrier(PATIENCE)
        recorder.outcome(first, success=True)

        async def waits() -> bool:
            return recorder.statistics().held_rows == 1

        await eventually(waits)
        for _ in range(5):
            recorder.routing_decision(selected_agent="later")
        recorder.barrier(PATIENCE)
        connections = recorder.statistics().reconnected

    agents = sorted(str(row["selected_agent"]) for row in await decisions(agentobs_database))
    assert agents == ["first", *["later"] * 5]
    assert connections <= 1
    [letter] = read_dead_letters(tmp_path / "dead-letters")
    assert letter["kind"] == "outcome"
    assert "grant SELECT" in letter["reason"]


async def test_an_outcome_that_is_refused_each_time_is_a_dead_letter_in_the_end(
    agentobs_database: DatabaseSettings,
    as_role: Rights,
    tmp_path: Path,
) -> None:
    settings = await as_role("INSERT, SELECT")
    with strict_recorder(settings, tmp_path, outcome_wait=0.5) as recorder:
        first = recorder.routing_decision(selected_agent="first")
        recorder.barrier(PATIENCE)
        recorder.outcome(first, success=True)

        async def is_given_up() -> bool:
            return recorder.statistics().dead_lettered == {"outcome": 1}

        await eventually(is_given_up)
        assert recorder.statistics().reconnected == 0

    [letter] = read_dead_letters(tmp_path / "dead-letters")
    assert "permission denied" in letter["reason"]
    [row] = await decisions(agentobs_database)
    assert row["actual_success"] is None
