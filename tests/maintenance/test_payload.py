"""Payload goes before its rows: the month is written anew, and what changes meanwhile keeps its."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS
from support.maintenance import (
    FEBRUARY,
    MARCH,
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

from agentobs.maintenance import payload
from agentobs.maintenance.archive import list_archives
from agentobs.maintenance.archiving import archive_month

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance.plan import ExpirePayload
    from agentobs.maintenance.tables import MonthPartition
    from agentobs.maintenance.workplace import Run

PAYLOAD = {"context_snapshot": '{"a": 1}', "user_request": "why"}
POLICY = letting_go(FEBRUARY, "keep_payload")


async def payload_of(connection: AsyncConnection, key: UUID) -> tuple[object, object]:
    query = text(f"SELECT user_request, context_snapshot::text FROM {EVENTS} WHERE id = :key")
    row = (await connection.execute(query, {"key": key})).one()
    return row[0], row[1]


async def test_the_payload_of_a_closed_month_goes_and_all_else_stays(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    old = await add_rows(look, FEBRUARY, 3, **PAYLOAD, target_agent="agent-old")
    young = await add_row(look, middle_of(MARCH), **PAYLOAD)
    without = "SELECT t::text FROM (SELECT id, target_agent, started_at, correlation_id"
    before = list(await look.scalars(text(f"{without} FROM {EVENTS}) t ORDER BY id")))

    await maintained(agentobs_database, POLICY)

    after = list(await look.scalars(text(f"{without} FROM {EVENTS}) t ORDER BY id")))
    assert after == before
    assert [await payload_of(look, key) for key in old] == [(None, None)] * 3
    assert await payload_of(look, young) == ("why", '{"a": 1}')
    assert await left_beside(look) == []


async def test_the_feedback_of_metrics_goes(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_row(look, middle_of(FEBRUARY), METRICS, feedback_details='{"a": 1}')

    await maintained(agentobs_database, POLICY)

    found = await look.scalars(text(f"SELECT feedback_details FROM {METRICS}"))
    assert list(found) == [None]


async def test_payload_goes_once(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await add_rows(look, FEBRUARY, 2, **PAYLOAD)
    await maintained(agentobs_database, POLICY)

    assert await steps_left(agentobs_database, POLICY) == []


async def test_the_payload_is_archived_first(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3, **PAYLOAD)

    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload", tmp_path))

    (found,) = list_archives(tmp_path)
    assert found.manifest is not None
    assert (found.manifest.kind, found.manifest.rows) == ("payload", 3)
    assert set(found.manifest.column_names) == {"id", *PAYLOAD}


async def test_the_rows_of_a_payload_that_is_gone_can_go_as_well(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 3, **PAYLOAD)
    await maintained(agentobs_database, letting_go(FEBRUARY, "keep_payload", tmp_path))

    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))

    assert await texts_in(look) == []
    kinds = [archive.manifest and archive.manifest.kind for archive in list_archives(tmp_path)]
    assert sorted(map(str, kinds)) == ["payload", "rows"]


@pytest.mark.parametrize("moment", ["archive", "copy", "catch up"])
async def test_rows_that_somebody_changes_meanwhile_keep_their_payload(
    agentobs_database: DatabaseSettings,
    look: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    untouched, changed, deleted = await add_rows(look, FEBRUARY, 3, **PAYLOAD)
    new: list[UUID] = []

    async def go_on() -> None:
        await look.execute(
            text(f"UPDATE {EVENTS} SET success = true, quality_score = 1 WHERE id = '{changed}'")
        )
        await look.execute(text(f"DELETE FROM {EVENTS} WHERE id = '{deleted}'"))
        new.append(await add_row(look, FEBRUARY.first, **PAYLOAD))

    _at(monkeypatch, moment, go_on)
    await maintained(agentobs_database, POLICY)

    assert await payload_of(look, untouched) == (None, None)
    assert await payload_of(look, changed) == await payload_of(look, new[0]) == ("why", '{"a": 1}')
    assert len(await texts_in(look)) == 3
    score = text(f"SELECT quality_score FROM {EVENTS} WHERE id = '{changed}'")
    assert await look.scalar(score) == 1
    assert await left_beside(look) == []


async def test_a_month_that_changes_as_a_whole_is_copied_before_the_lock_is_taken(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload, "_LAST_ROWS", 1)
    await add_rows(look, FEBRUARY, 5, **PAYLOAD)
    copied: list[int] = []
    original = payload._copy_changed_rows

    async def count_copied(run: Run, part: MonthPartition) -> int:
        copied.append(await original(run, part))
        return copied[-1]

    async def change_all() -> None:
        await look.execute(text(f"UPDATE {EVENTS} SET success = true"))

    monkeypatch.setattr(payload, "_copy_changed_rows", count_copied)
    _at(monkeypatch, "copy", change_all)
    await maintained(agentobs_database, POLICY)

    assert copied == [5, 0, 0]
    assert all("why" in row for row in await texts_in(look))


async def test_the_month_is_copied_piece_by_piece(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload, "_CHUNK", 2)
    await add_rows(look, FEBRUARY, 5, **PAYLOAD)
    await maintained(agentobs_database)
    watcher = Told()

    await maintained(agentobs_database, POLICY, watcher=watcher)

    assert [done for done, _ in watcher.progress] == [2, 4, 5]
    assert len(await texts_in(look)) == 5


async def test_a_partition_that_somebody_made_keeps_its_name(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    bounds = f"FROM ('{FEBRUARY.lower_id}') TO ('{FEBRUARY.upper_id}')"
    await look.execute(text(f"CREATE TABLE winter PARTITION OF {EVENTS} FOR VALUES {bounds}"))
    await add_rows(look, FEBRUARY, 2, **PAYLOAD)

    await maintained(agentobs_database, POLICY)

    assert "winter" in await partitions_of(look)
    assert all("why" not in row for row in await texts_in(look))
    assert await steps_left(agentobs_database, POLICY) == []


async def test_rows_that_a_truncate_takes_meanwhile_do_not_come_back(
    agentobs_database: DatabaseSettings, look: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_rows(look, FEBRUARY, 3, **PAYLOAD)

    async def empty() -> None:
        await look.execute(text(f"TRUNCATE {EVENTS}"))
        await add_row(look, middle_of(FEBRUARY), **PAYLOAD)

    _at(monkeypatch, "copy", empty)
    await maintained(agentobs_database, POLICY)

    assert len(await texts_in(look)) == 1


def _at(monkeypatch: pytest.MonkeyPatch, moment: str, act: Callable[[], Awaitable[None]]) -> None:
    """Let somebody act once when a step of the rewriting has been done."""
    done: list[bool] = []
    originals = payload._write_beside, payload._catch_up

    async def once() -> None:
        if not done:
            done.append(True)
            await act()

    async def archive(
        run: Run,
        part: MonthPartition,
        archive: str | None,
        *,
        payload: Sequence[str] | None = None,
    ) -> None:
        await archive_month(run, part, archive, payload=payload)
        await once()

    async def write(run: Run, step: ExpirePayload) -> None:
        await originals[0](run, step)
        await once()

    async def catch_up(run: Run, part: MonthPartition) -> None:
        await originals[1](run, part)
        await once()

    names = {
        "archive": ("archive_month", archive),
        "copy": ("_write_beside", write),
        "catch up": ("_catch_up", catch_up),
    }
    name, replacement = names[moment]
    monkeypatch.setattr(payload, name, replacement)
