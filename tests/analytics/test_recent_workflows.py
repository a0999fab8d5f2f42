"""Which workflows there were, newest first, and which of them failed or still run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from support.rollups import run

from agentobs.analytics import Window, select_workflows, workflows
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WINDOW = Window(NOON, NOON + 60 * MINUTE)
GOOD, FAILED, RUNNING = (UUID(int=number) for number in (1, 2, 3))


async def add_three(session: AsyncSession) -> None:
    for key, minute, agent, success in (
        (GOOD, 1, "router", True),
        (GOOD, 2, "coder", True),
        (FAILED, 3, "router", True),
        (FAILED, 4, "coder", False),
        (RUNNING, 0, "router", True),
        (RUNNING, 5, "coder", None),
    ):
        row = run(NOON + minute * MINUTE, target_agent=agent, success=success)
        row.correlation_id = key
        session.add(row)
    await session.flush()


async def test_workflows_come_by_the_last_of_their_runs(session: AsyncSession) -> None:
    await add_three(session)

    found = await workflows(session, WINDOW)

    assert [row.model_dump() for row in found] == [
        {
            "correlation_id": key,
            "began_at": NOON + minute * MINUTE,
            "first_agent": "router",
            "runs": 2,
            "failed": failed,
            "running": running,
        }
        for key, minute, failed, running in (
            (RUNNING, 0, 0, 1),
            (FAILED, 3, 1, 0),
            (GOOD, 1, 0, 0),
        )
    ]


async def test_those_that_failed_and_those_that_run_can_be_asked_for(
    session: AsyncSession,
) -> None:
    await add_three(session)

    assert [row.correlation_id for row in await workflows(session, WINDOW, "failed")] == [FAILED]
    assert [row.correlation_id for row in await workflows(session, WINDOW, "running")] == [RUNNING]
    assert [row.correlation_id for row in await workflows(session, WINDOW, limit=1)] == [RUNNING]


def test_another_word_or_limit_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="only must be"):
        select_workflows(WINDOW, "stuck")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="limit must be 1 or more"):
        select_workflows(WINDOW, limit=0)
