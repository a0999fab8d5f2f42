"""What is told of the errors that leave a block together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.recorders import events

if TYPE_CHECKING:
    from agentobs import DatabaseSettings, Recorder


async def message_of(recorder: Recorder, database: DatabaseSettings, error: BaseException) -> str:
    with suppress(BaseException), recorder.transformation(target_agent="agent"):
        raise error
    await recorder.abarrier()
    [row] = await events(database)
    assert row["error_type"] == type(error).__name__
    assert isinstance(row["error_message"], str)
    return row["error_message"]


async def test_the_errors_of_a_task_group_are_named_by_their_types(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("a")))
            group.create_task(fail(KeyError("b")))

    with pytest.raises(ExceptionGroup) as caught:
        await work()

    message = await message_of(recorder, agentobs_database, caught.value)
    assert message == "unhandled errors in a TaskGroup (2 sub-exceptions): ValueError, KeyError"


async def test_the_errors_of_groups_in_groups_are_named_once_each(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    inner = ExceptionGroup("inner", [ValueError("a"), KeyError("b")])
    outer = BaseExceptionGroup("outer", [ValueError("c"), inner, KeyboardInterrupt()])

    message = await message_of(recorder, agentobs_database, outer)

    assert message == "outer (3 sub-exceptions): ValueError, KeyError, KeyboardInterrupt"


async def test_at_most_ten_errors_of_a_group_are_named(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    errors = [type(f"Error{number}", (Exception,), {})() for number in range(10, 30)]

    message = await message_of(recorder, agentobs_database, ExceptionGroup("many", errors))

    names = ", ".join(f"Error{number}" for number in range(10, 20))
    assert message == f"many (20 sub-exceptions): {names}, …"


async def test_what_a_group_says_itself_of_its_errors_is_not_said_again(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    group = ExceptionGroup("a ValueError", [ValueError("a")])

    message = await message_of(recorder, agentobs_database, group)

    assert message == "a ValueError (1 sub-exception)"


async def test_a_group_of_groups_without_end_is_told_all_the_same(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    group: Exception = ValueError("a")
    for number in range(5_000):
        group = ExceptionGroup(f"level {number}", [group])

    message = await message_of(recorder, agentobs_database, group)

    assert message.startswith("level 4999 (1 sub-exception)")
