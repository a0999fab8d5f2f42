"""What others write while an online upgrade is at work is there after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from support.event_rows import EVENTS, METRICS
from support.online_pair import fill, fill_both, require_same_after, write
from support.shell import connect, psql

from agentobs import migrations
from agentobs.migrations.online import catching_up, copying, run
from agentobs.migrations.online.indexing import index_partitions
from agentobs.migrations.online.swap import swap
from agentobs.migrations.online.tables import CHANGES

if TYPE_CHECKING:
    from support.online_pair import Pair


CHILD = "md5('event' || 57)::uuid"
PARENT = "md5('event' || 51)::uuid"
WRITES = {
    "inserted": f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent, started_at, "
    f"parent_event_id) SELECT md5('late' || n)::uuid, 'x', md5('w')::uuid, 'late', "
    f"'2024-05-05'::timestamptz + n * interval '1 hour', {PARENT} FROM generate_series(1, 50) n",
    "of a month that nothing was of": f"INSERT INTO {METRICS} (id, metric_type, measured_at) "
    "VALUES (md5('old')::uuid, 'x', '2019-07-07')",
    "completed": f"UPDATE {EVENTS} SET success = true, quality_score = 0.5 "
    f"WHERE target_agent = 'agent-3'",
    "given another instant": f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    "given another id": f"UPDATE {EVENTS} SET id = md5('another')::uuid WHERE id = {CHILD}",
    "linked to another": f"UPDATE {EVENTS} SET parent_event_id = {PARENT} "
    "WHERE target_agent = 'agent-2'",
    "deleted": f"DELETE FROM {EVENTS} WHERE id = {CHILD}",
    "deleted and inserted again": f"DELETE FROM {METRICS} WHERE id = md5('metric7')::uuid; "
    f"INSERT INTO {METRICS} (id, metric_type, measured_at) "
    "VALUES (md5('metric7')::uuid, 'again', '2024-03-03')",
    "rolled back": f"BEGIN; DELETE FROM {METRICS}; ROLLBACK",
    "as a replica": f"SET session_replication_role = replica; DELETE FROM {METRICS} "
    "WHERE id = md5('metric9')::uuid",
}
MOMENTS = ["copy_rows", "index_partitions", "catch_up", "verify", "swap"]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_is_written_meanwhile_is_there_after_the_swap(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    locked, online = pair
    await fill_both(pair)
    step = getattr(run, moment)
    written: list[str] = []

    def write_and_go_on(*arguments: Any) -> None:
        if not written:
            write(online, WRITES.values())
            written.append(moment)
        step(*arguments)

    monkeypatch.setattr(run, moment, write_and_go_on)
    await migrations.upgrade_online(settings=online)

    assert written == [moment]
    await require_same_after(WRITES.values(), locked, online)


# Of rows that were copied already: each is met once more, further on.
LATER = [
    f"UPDATE {EVENTS} SET started_at = '2024-05-20' WHERE id = md5('event' || 5)::uuid",
    f"UPDATE {EVENTS} SET started_at = started_at + '12 hours' WHERE target_agent = 'kept'",
    f"DELETE FROM {EVENTS} WHERE target_agent = 'before'",
    (
        f"INSERT INTO {EVENTS} (id, event_type, correlation_id, target_agent, started_at) VALUES "
        "('00000000-0000-4000-8000-00000000000b', 'x', md5('b')::uuid, 'again', '2024-05-20')"
    ),
]


async def test_a_row_that_moves_ahead_of_the_copy_is_copied_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, online = pair
    await fill_both(pair)
    monkeypatch.setattr(copying, "BATCH", 50)
    copy_batch, batches = copying._copy_batch, []

    def write_after_the_first(*arguments: Any) -> int:
        rows = copy_batch(*arguments)
        batches.append(rows)
        if len(batches) == 1:
            write(online, LATER)
        return rows

    monkeypatch.setattr(copying, "_copy_batch", write_after_the_first)
    await migrations.upgrade_online(settings=online)

    assert len(batches) > 2
    await require_same_after(LATER, locked, online)


async def test_children_of_a_row_that_moves_are_compared_when_all_notes_are_worked_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child is copied with its parent's new key while the parent's own note waits its turn."""
    locked, online = pair
    await fill_both(pair)
    # An update leaves two notes, of the row before and of the row after it.
    monkeypatch.setattr(catching_up, "MOST_AT_ONCE", 2)
    written: list[str] = []
    moves = [
        f"UPDATE {EVENTS} SET success = true WHERE id = {CHILD}",
        f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    ]

    def write_and_go_on(*arguments: Any) -> None:
        if not written:
            write(online, moves)
            written.extend(moves)
        index_partitions(*arguments)

    monkeypatch.setattr(run, "index_partitions", write_and_go_on)
    await migrations.upgrade_online(settings=online)

    assert written == moves
    await require_same_after(moves, locked, online)


async def test_children_that_were_copied_before_their_parent_follow_it_when_it_moves(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent with a note is not copied in its turn, and its children are."""
    locked, online = pair
    await fill_both(pair)
    moves = [
        f"UPDATE {EVENTS} SET success = true WHERE id = {PARENT}",
        f"UPDATE {EVENTS} SET started_at = '2024-06-06' WHERE id = {PARENT}",
    ]
    copy_rows = copying.copy_rows

    def copy_between_the_moves(connection: Any, table: Any) -> None:
        if table.name == EVENTS:
            write(online, moves[:1])
            copy_rows(connection, table)
            write(online, moves[1:])
        else:
            copy_rows(connection, table)

    monkeypatch.setattr(run, "copy_rows", copy_between_the_moves)
    await migrations.upgrade_online(settings=online)

    await require_same_after(moves, locked, online)


async def test_a_truncate_meanwhile_leaves_what_came_after_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, _ = pair
    await fill(online)
    catch_up = catching_up.catch_up
    emptied: list[int] = []

    def empty_and_go_on(*arguments: Any) -> None:
        if not emptied:
            emptied.append(psql(online, f"TRUNCATE {METRICS}; {AFTER}").returncode)
        catch_up(*arguments)

    monkeypatch.setattr(run, "catch_up", empty_and_go_on)
    await migrations.upgrade_online(settings=online)

    async with connect(online) as connection:
        found = await connection.scalars(text(f"SELECT metric_type FROM {METRICS}"))
        assert (emptied, found.all()) == ([0], ["after"])
        assert await connection.scalar(text(f"SELECT count(*) FROM {EVENTS}")) == 404


async def test_a_truncate_between_two_rounds_leaves_what_came_after_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note has the first place of all, and is met before those of what came after it."""
    online, _ = pair
    await fill(online)
    monkeypatch.setattr(catching_up, "MOST_AT_ONCE", 5)
    apply_changes, rounds = catching_up.apply_changes, []

    def empty_after_the_first(connection: Any, table: Any, **options: Any) -> Any:
        if table.name == METRICS:
            rounds.append(table)
            if len(rounds) == 2:
                write(online, [f"TRUNCATE {METRICS}; {LAST}"])
        return apply_changes(connection, table, **options)

    monkeypatch.setattr(catching_up, "apply_changes", empty_after_the_first)
    catch_up = catching_up.catch_up
    noted: list[str] = []

    def note_and_go_on(*arguments: Any) -> None:
        if not noted:
            noted.append(
                f"UPDATE {METRICS} SET selected_agent = 'b' WHERE selected_agent = 'agent-1'"
            )
            write(online, noted)
        catch_up(*arguments)

    monkeypatch.setattr(run, "catch_up", note_and_go_on)
    await migrations.upgrade_online(settings=online)

    async with connect(online) as connection:
        found = await connection.scalars(text(f"SELECT metric_type FROM {METRICS}"))
        assert found.all() == ["last"]


async def test_the_swap_finds_no_trace_of_notes_that_were_worked_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All wait while the swap looks for the last ones."""
    online, _ = pair
    await fill(online)
    monkeypatch.setattr(catching_up, "MOST_AT_ONCE", 50)
    catch_up = catching_up.catch_up
    seen: list[int] = []

    def write_and_go_on(*arguments: Any) -> None:
        if not seen:
            write(online, [f"UPDATE {EVENTS} SET success = true"] * 3)
            seen.append(-1)
        catch_up(*arguments)

    def look_and_go_on(connection: Any) -> None:
        found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {NOTES}")
        plan = found.scalar_one()[0]["Plan"]
        seen.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        connection.rollback()
        swap(connection)

    monkeypatch.setattr(run, "catch_up", write_and_go_on)
    monkeypatch.setattr(run, "swap", look_and_go_on)
    await migrations.upgrade_online(settings=online)

    assert seen[0] == -1
    assert seen[1] < 5


NOTES = f"SELECT id FROM {CHANGES} WHERE table_name = '{EVENTS}' ORDER BY id"
LAST = (
    f"INSERT INTO {METRICS} (id, metric_type, measured_at) "
    "VALUES ('ffffffff-0000-4000-8000-000000000001', 'last', '2024-03-03')"
)
AFTER = f"INSERT INTO {METRICS} (metric_type, measured_at) VALUES ('after', '2024-03-03')"
