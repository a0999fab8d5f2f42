"""Indexes that are not valid, and indexes that nobody asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import findings_of, fix
from support.event_rows import EVENTS, METRICS, insert_row
from support.pools import eventually
from support.shell import connect_in_transaction

from agentobs.doctor import Severity
from agentobs.errors import DatabaseError
from agentobs.maintenance import Month

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

LEAF = f"{EVENTS}_{Month.of(datetime.now(UTC)).suffix}"
ALWAYS = {"unused_for": timedelta(0), "unused_bytes": 0}


async def invalidate(hand: AsyncConnection, *indexes: str) -> None:
    """Leave indexes as a server does that was killed while it built them."""
    for index in indexes:
        await hand.execute(
            text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass")
        )


async def unattached_leaves(hand: AsyncConnection, root: str) -> int:
    count = await hand.scalar(
        text(f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{root}'::regclass")
    )
    leaves = await hand.scalar(
        text(f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{EVENTS}'::regclass")
    )
    return int(leaves or 0) - int(count or 0)


async def test_an_index_whose_making_failed_is_dropped(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    for _ in range(2):
        await insert_row(hand, target_agent="twice")
    with pytest.raises(DatabaseError):
        await hand.execute(
            text(f'CREATE UNIQUE INDEX CONCURRENTLY "of theirs" ON {LEAF} (target_agent)')
        )

    (invalid,) = await findings_of("invalid_indexes", agentobs_database)

    assert (invalid.subject, invalid.severity) == ('public."of theirs"', Severity.WARNING)
    fix(agentobs_database, [invalid])
    assert await findings_of("invalid_indexes", agentobs_database) == []
    assert await hand.scalar(text("SELECT to_regclass('\"of theirs\"')")) is None


@pytest.mark.parametrize(
    "index",
    [
        f"{LEAF}_session_id_idx",
        f"{LEAF}_pkey",
        "idx_agent_definitions_yaml_paths",
        "agent_definitions_name_version_unique",
    ],
)
async def test_an_index_that_is_needed_is_built_again(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, index: str
) -> None:
    await invalidate(hand, index)

    (invalid,) = await findings_of("invalid_indexes", agentobs_database)

    fix(agentobs_database, [invalid])
    assert await findings_of("invalid_indexes", agentobs_database) == []
    assert await findings_of("drift", agentobs_database) == []


async def test_an_index_of_all_months_is_valid_when_those_of_all_months_are(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await invalidate(hand, f"{LEAF}_session_id_idx", f"idx_{EVENTS}_session")

    found = await findings_of("invalid_indexes", agentobs_database)

    # The second fix would do nothing before the first one.
    assert [each.subject for each in found] == [
        f"public.{LEAF}_session_id_idx",
        f"public.idx_{EVENTS}_session",
    ]
    fix(agentobs_database, found)
    assert await findings_of("invalid_indexes", agentobs_database) == []


async def test_an_index_of_all_months_that_was_begun_is_finished(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    definition = "(lower(target_agent)) WHERE success"
    await hand.execute(text(f"CREATE INDEX of_host ON ONLY {EVENTS} {definition}"))
    await hand.execute(text(f"CREATE INDEX of_host_default ON {EVENTS}_default {definition}"))
    await hand.execute(text(f"CREATE INDEX of_host_now ON {LEAF} {definition}"))
    await hand.execute(text("ALTER INDEX of_host ATTACH PARTITION of_host_now"))

    (begun,) = await findings_of("invalid_indexes", agentobs_database)

    assert begun.subject == "public.of_host"
    assert begun.fix is not None
    # What is there is taken, and the others are made beside those who write.
    assert "ATTACH PARTITION public.of_host_default;" in begun.fix
    assert (
        begun.fix.count("CREATE INDEX CONCURRENTLY") == await unattached_leaves(hand, "of_host") - 1
    )
    fix(agentobs_database, [begun])
    assert await findings_of("invalid_indexes", agentobs_database) == []
    assert await unattached_leaves(hand, "of_host") == 0


async def test_an_index_that_may_be_in_the_making_is_left_alone(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"CREATE INDEX of_host ON {LEAF} (lower(target_agent))"))
    await invalidate(hand, "of_host")
    async with connect_in_transaction(agentobs_database) as maker:
        await maker.execute(text(f"LOCK TABLE {LEAF} IN SHARE UPDATE EXCLUSIVE MODE"))

        (making,) = await findings_of("invalid_indexes", agentobs_database)

    assert making.severity is Severity.NOTICE
    assert making.fix == "agentobs doctor"


async def test_an_index_of_another_table_is_its_hosts_affair(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text("CREATE TABLE notes (note text)"))
    await hand.execute(text("CREATE INDEX of_notes ON notes (note)"))
    await invalidate(hand, "of_notes")

    assert await findings_of("invalid_indexes", agentobs_database) == []
    unused = await findings_of("unused_indexes", agentobs_database, **ALWAYS)
    assert "public.of_notes" not in {each.subject for each in unused}


async def test_an_index_that_nobody_asks_is_named_once_for_all_months(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"CREATE INDEX of_host ON {EVENTS} (lower(target_agent))"))

    found = await findings_of("unused_indexes", agentobs_database, **ALWAYS)

    own = [each for each in found if each.subject == "public.of_host"]
    assert [each.severity for each in own] == [Severity.NOTICE]
    assert "is one of the package's" not in own[0].words
    fix(agentobs_database, own)
    left = await findings_of("unused_indexes", agentobs_database, **ALWAYS)
    assert "public.of_host" not in {each.subject for each in left}
    # Those of the package are told apart, and no key is ever among them.
    assert all("is one of the package's" in each.words for each in left)
    assert not [each for each in left if each.subject and each.subject.endswith(("pkey", "unique"))]


async def test_an_index_that_was_asked_is_not_unused(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"CREATE INDEX of_host ON {METRICS} (lower(selected_agent))"))
    await hand.execute(text("SET enable_seqscan = off"))

    async def is_used() -> bool:
        await hand.execute(
            text(f"SELECT count(*) FROM {METRICS} WHERE lower(selected_agent) = 'x'")
        )
        found = await findings_of("unused_indexes", agentobs_database, **ALWAYS)
        return "public.of_host" not in {each.subject for each in found}

    await eventually(is_used)


@pytest.mark.parametrize("bound", [{"unused_for": timedelta(days=10_000)}, {"unused_bytes": 2**40}])
async def test_statistics_that_are_young_and_indexes_that_are_small_tell_nothing(
    agentobs_database: DatabaseSettings, bound: dict[str, object]
) -> None:
    assert await findings_of("unused_indexes", agentobs_database, **(ALWAYS | bound)) == []
