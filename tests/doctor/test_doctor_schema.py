"""The revision that is recorded, and tables that are not as the revisions make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import examined, faults_of, findings_of, fix, worse_than_a_notice
from support.event_rows import EVENTS, METRICS, insert_row
from support.shell import HEAD, connect

from agentobs import migrations
from agentobs.doctor import Severity
from agentobs.migrations import VERSION_TABLE
from agentobs.migrations.online import run

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


async def test_a_database_at_head_has_nothing_worse_than_notices(
    agentobs_database: DatabaseSettings,
) -> None:
    found = await examined(agentobs_database)

    assert worse_than_a_notice(found) == []
    assert found.server is not None
    assert found.server.revision == HEAD


async def test_an_empty_database_is_to_be_migrated(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    found = await examined(agentobs_empty_database)

    (critical,) = worse_than_a_notice(found)
    assert (critical.check, critical.severity) == ("revision", Severity.CRITICAL)
    # What looks at the tables says nothing of its own.
    assert "partitions" not in {finding.check for finding in found.findings}
    fix(agentobs_empty_database, [critical])
    assert worse_than_a_notice(await examined(agentobs_empty_database)) == []


async def test_a_database_behind_the_package_is_told_what_it_lacks(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    await migrations.upgrade("0006", settings=agentobs_empty_database)

    behind, _ = await findings_of("revision", agentobs_empty_database)

    assert behind.severity is Severity.CRITICAL
    assert "at 0006, behind this package" in behind.words
    assert "0007 Capture which rows" in behind.words
    fix(agentobs_empty_database, [behind])
    assert await findings_of("revision", agentobs_empty_database) == []


async def test_a_database_ahead_of_the_package_needs_a_newer_package(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    found = await examined(agentobs_database)

    (ahead,) = faults_of("revision", found)
    assert ahead.severity is Severity.WARNING
    assert "at 9999, ahead of this package" in ahead.words
    assert ahead.fix == "pip install --upgrade agentobs-orm"
    # Tables of a newer version are looked at all the same.
    assert faults_of("partitions", found) == []


async def test_a_second_revision_is_taken_away(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES ('0003')"))

    (several, *_) = await findings_of("revision", agentobs_database)

    assert "has 2 rows" in several.words
    fix(agentobs_database, [several])
    assert await findings_of("revision", agentobs_database) == []


async def test_a_revision_that_is_stale_is_told_with_the_tables_that_are_newer(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0003'"))

    stale, *_ = await findings_of("revision", agentobs_database)

    assert f"the tables are those of {HEAD}" in stale.words
    fix(agentobs_database, [stale])
    assert worse_than_a_notice(await examined(agentobs_database)) == []


async def test_a_version_table_that_is_lost_is_written_again(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"DROP TABLE {VERSION_TABLE}"))

    lost, *_ = await findings_of("revision", agentobs_database)

    assert "no revision is recorded" in lost.words
    fix(agentobs_database, [lost])
    assert worse_than_a_notice(await examined(agentobs_database)) == []


@pytest.mark.parametrize("made", [each.revision for each in migrations.revisions()][:-3])
async def test_tables_of_a_revision_that_no_table_records_are_recorded_as_its_own(
    agentobs_empty_database: DatabaseSettings, made: str
) -> None:
    await migrations.upgrade(made, settings=agentobs_empty_database)
    async with connect(agentobs_empty_database) as connection:
        await connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        # With it, the tables would be those of the newest revision.
        await connection.execute(text("DROP INDEX idx_agent_transformation_events_correlation"))

    lost, *_ = await findings_of("revision", agentobs_empty_database)

    assert f"as revision {made} makes them" in lost.words
    fix(agentobs_empty_database, [lost])
    assert await migrations.current(settings=agentobs_empty_database) == made


async def test_tables_of_scripts_are_to_be_adopted(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    await migrations.upgrade("0003", settings=agentobs_empty_database)
    await migrations.stamp("base", settings=agentobs_empty_database)

    unrecorded, _ = await findings_of("revision", agentobs_empty_database)

    assert "no revision is recorded" in unrecorded.words
    fix(agentobs_empty_database, [unrecorded])
    assert await migrations.current(settings=agentobs_empty_database) == "0003"


async def test_a_database_whose_tables_are_to_be_rewritten_is_told_how_to_do_it_beside_services(
    agentobs_empty_database: DatabaseSettings,
) -> None:
    await migrations.upgrade("0004", settings=agentobs_empty_database)

    behind, _ = await findings_of("revision", agentobs_empty_database)

    assert behind.words.endswith("Where services can't wait for it: `agentobs db upgrade --online`")


async def test_an_online_upgrade_that_was_broken_off_is_told_and_gone_on_with(
    agentobs_empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.upgrade("0004", settings=agentobs_empty_database)
    with monkeypatch.context() as patched:
        patched.delattr(run, "swap")
        with pytest.raises(NameError):
            await migrations.upgrade_online(settings=agentobs_empty_database)

    unfinished, _ = await findings_of("revision", agentobs_empty_database)

    assert "an online upgrade is not finished" in unfinished.words
    fix(agentobs_empty_database, [unfinished])
    assert await migrations.current(settings=agentobs_empty_database) == HEAD


DRIFT = {
    "a CHECK": f"ALTER TABLE {EVENTS} DROP CONSTRAINT {EVENTS}_quality_check",
    "a key": "ALTER TABLE agent_definitions DROP CONSTRAINT agent_definitions_name_version_unique",
    "an index": "DROP INDEX idx_agent_definitions_yaml_paths",
    "a default": f"ALTER TABLE {METRICS} ALTER COLUMN measured_at DROP DEFAULT",
    "not null": f"ALTER TABLE {EVENTS} ALTER COLUMN target_agent DROP NOT NULL",
    "a column": "ALTER TABLE agent_definitions DROP COLUMN quality_score",
    "a trigger": f"DROP TRIGGER trigger_{EVENTS}_parents_inserted ON {EVENTS}",
}


@pytest.mark.parametrize("what", DRIFT)
async def test_what_somebody_took_away_is_put_back(
    agentobs_database: DatabaseSettings, hand: AsyncConnection, what: str
) -> None:
    await hand.execute(text(DRIFT[what]))

    found = await findings_of("drift", agentobs_database)

    assert max(finding.severity for finding in found) >= Severity.WARNING
    fix(agentobs_database, found)
    assert await findings_of("drift", agentobs_database) == []


async def test_rows_that_do_not_allow_a_constraint_are_shown(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(DRIFT["a CHECK"]))
    row = await insert_row(hand, EVENTS)
    await hand.execute(text(f"UPDATE {EVENTS} SET quality_score = 7"))

    (missing,) = await findings_of("drift", agentobs_database)

    _, _, query = missing.words.partition("Rows that don't allow it are found by ")
    assert (await hand.scalars(text(query))).all() == [row]


async def test_a_lost_column_is_put_back_when_its_rows_have_a_value(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await insert_row(hand, EVENTS)
    await hand.execute(text(f"ALTER TABLE {EVENTS} DROP COLUMN target_agent CASCADE"))

    (missing, *_) = await findings_of("drift", agentobs_database)
    assert "fill it in before it is NOT NULL" in missing.words
    add, required = (missing.fix or "").splitlines()
    await hand.execute(text(add))
    await hand.execute(text(f"UPDATE {EVENTS} SET target_agent = 'known'"))
    await hand.execute(text(required))

    for check in ("drift", "drift", "invalid_indexes", "rollups"):
        fix(agentobs_database, await findings_of(check, agentobs_database))
    for check in ("drift", "invalid_indexes", "rollups"):
        assert await findings_of(check, agentobs_database) == []


async def test_a_lost_index_of_partitions_is_made_in_one_after_the_other(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"DROP INDEX idx_{EVENTS}_session"))

    (missing,) = await findings_of("drift", agentobs_database)
    assert "Ask again after this fix" in missing.words
    fix(agentobs_database, [missing])
    assert await findings_of("drift", agentobs_database) == []
    (unfinished,) = await findings_of("invalid_indexes", agentobs_database)
    assert "CREATE INDEX CONCURRENTLY" in (unfinished.fix or "")
    fix(agentobs_database, [unfinished])
    assert worse_than_a_notice(await examined(agentobs_database)) == []


async def test_comments_that_a_dump_left_out_are_one_notice(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text(f"COMMENT ON TABLE {EVENTS} IS NULL"))
    await hand.execute(text(f"COMMENT ON COLUMN {EVENTS}.success IS NULL"))

    (missing,) = await findings_of("drift", agentobs_database)

    assert missing.severity is Severity.NOTICE
    assert missing.words.startswith("2 comments are missing")
    fix(agentobs_database, [missing])
    assert await findings_of("drift", agentobs_database) == []


async def test_what_a_host_added_is_its_own(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text("CREATE TABLE notes (id int PRIMARY KEY, note text)"))
    await hand.execute(text(f"ALTER TABLE {EVENTS} ADD COLUMN tenant text"))
    await hand.execute(text(f"CREATE INDEX of_host ON {EVENTS} (tenant)"))

    assert worse_than_a_notice(await examined(agentobs_database)) == []


async def test_a_schema_of_choice_is_looked_at_instead(
    agentobs_database: DatabaseSettings,
) -> None:
    elsewhere = agentobs_database.model_copy(update={"schema_name": 'of "choice" :it %s'})

    assert "has no tables yet" in (await findings_of("revision", elsewhere))[0].words
    await migrations.upgrade(settings=elsewhere)
    found = await examined(elsewhere)
    assert worse_than_a_notice(found) == []
    assert found.server is not None
    assert found.server.schema_name == 'of "choice" :it %s'


async def test_a_fix_names_the_schema_of_choice(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    elsewhere = agentobs_database.model_copy(update={"schema_name": "observed"})
    await migrations.upgrade(settings=elsewhere)
    await hand.execute(text(f"DROP INDEX observed.idx_{EVENTS}_session"))
    await hand.execute(
        text(f"ALTER TABLE observed.{EVENTS} DROP CONSTRAINT {EVENTS}_quality_check")
    )

    found = await findings_of("drift", elsewhere)

    assert len(found) == 2
    fix(agentobs_database, found)
    assert await findings_of("drift", elsewhere) == []
    assert await findings_of("drift", agentobs_database) == []
