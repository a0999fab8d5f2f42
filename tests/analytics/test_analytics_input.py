"""What is no window, no session, no key or no step is refused by an error that names the fix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from support.shell import url_of

from agentobs import DatabaseSettings, analytics, create_engine, create_session_factory
from agentobs.analytics import Window, agents, routing, select_routing, session_traces, trace
from agentobs.errors import InvalidValueError
from agentobs.registry import find_agents_by_patterns

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

WINDOW = Window.last(timedelta(days=7), until=datetime(2026, 3, 1, tzinfo=UTC))
WORKFLOW = UUID("0190a7f8-2d3e-7c41-b1aa-5f0d1c2b3a49")
OTHERS = {"every": timedelta(hours=1), "name": "agent-debug"}


def _with_a_window(first: str) -> list[str]:
    """The public functions that need a window: of executors the session comes first."""
    found = []
    for name in analytics.__all__:
        thing = getattr(analytics, name)
        if callable(thing) and not isinstance(thing, type):
            parameters = list(signature(thing).parameters.values())
            needed = [each.name for each in parameters if each.default is Parameter.empty]
            if needed[0] == first and "window" in needed:
                found.append(name)
    return found


def _arguments(name: str, window: Any) -> dict[str, Any]:
    known = signature(getattr(analytics, name)).parameters
    return {"window": window} | {key: value for key, value in OTHERS.items() if key in known}


@pytest.mark.parametrize("name", _with_a_window("window"))
def test_no_statement_is_built_of_what_is_no_window(name: str) -> None:
    for window in ("7d", timedelta(days=7), None):
        with pytest.raises(InvalidValueError, match=r"Window\.last\(timedelta\(days=7\)\)"):
            getattr(analytics, name)(**_arguments(name, window))


async def test_no_question_is_asked_of_what_is_no_window(session: AsyncSession) -> None:
    questions = _with_a_window("session")
    assert {"agents", "alerts", "handoffs", "suggest_weights"} <= set(questions)
    for name in questions:
        with pytest.raises(InvalidValueError, match=r"Window\.last\(timedelta\(days=7\)\)"):
            await getattr(analytics, name)(session, **_arguments(name, "7d"))
    with pytest.raises(InvalidValueError, match="must be a Window"):
        await trace(session, WORKFLOW, window="7d")  # type: ignore[arg-type]  # the mistake itself


async def test_a_factory_or_an_engine_for_a_session_is_told_how_to_open_one(
    agentobs_database: DatabaseSettings,
) -> None:
    engine = create_engine(DatabaseSettings(database_url=url_of(agentobs_database)))
    factory = create_session_factory(engine)
    for mistaken in (factory, engine):
        for name in _with_a_window("session"):
            with pytest.raises(InvalidValueError, match="async with sessions"):
                await getattr(analytics, name)(mistaken, **_arguments(name, WINDOW))
        with pytest.raises(InvalidValueError, match="async with sessions"):
            await trace(mistaken, WORKFLOW)  # type: ignore[arg-type]  # as above
    await engine.dispose()


async def test_a_workflow_is_found_by_the_text_of_its_id_and_by_no_other_text(
    session: AsyncSession,
) -> None:
    assert (await trace(session, str(WORKFLOW))).correlation_id == WORKFLOW
    assert not await session_traces(session, str(WORKFLOW))
    for mistaken in ("abc", "", 7, None):
        with pytest.raises(InvalidValueError, match=r"^correlation_id must be a UUID"):
            await trace(session, mistaken)  # type: ignore[arg-type]  # as above
        with pytest.raises(InvalidValueError, match=r"^session_id must be a UUID"):
            await session_traces(session, mistaken)  # type: ignore[arg-type]  # as above


async def test_a_step_that_is_no_timedelta_is_refused_with_one_that_is(
    session: AsyncSession,
) -> None:
    for every in (60, "1h", None):
        with pytest.raises(InvalidValueError, match=r"timedelta\(hours=1\)"):
            await routing(session, WINDOW, every)  # type: ignore[arg-type]  # as above
        with pytest.raises(InvalidValueError, match=r"timedelta\(hours=1\)"):
            select_routing(WINDOW, every)  # type: ignore[arg-type]  # as above


async def test_a_request_is_one_text(session: AsyncSession) -> None:
    for request in (["text"], None, b"text"):
        with pytest.raises(InvalidValueError, match=r"^request must be one text"):
            await find_agents_by_patterns(session, request)  # type: ignore[arg-type]  # as above


async def test_what_is_right_is_answered(session: AsyncSession) -> None:
    assert not await agents(session, WINDOW)
