"""What the doctor may not do, or not in time: it says so, and does the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import make_url, text
from support.doctor import examined, faults_of, findings_of, fix, of_private, worse_than_a_notice
from support.event_rows import EVENTS, METRICS, insert_row
from support.private_server import private_server
from support.shell import connect, connect_in_transaction, url_of

from agentobs import migrations
from agentobs.doctor import Diagnosis, Severity
from agentobs.doctor.connection import open_connection, settle_for_good
from agentobs.errors import ReadOnlyError
from agentobs.sessions.address import database_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


@pytest_asyncio.fixture
async def stranger(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> AsyncIterator[DatabaseSettings]:
    """Yield the settings of a role without any right."""
    name = f"agentobs stranger {uuid4().hex}"
    await hand.execute(text(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'unsaid'"))
    url = make_url(url_of(agentobs_database)).set(username=name, password="unsaid")  # noqa: S106 (of this test alone)
    address = url.render_as_string(hide_password=False).replace("+", "%20")
    yield agentobs_database.model_copy(update={"database_url": SecretStr(address)})
    await hand.execute(text(f'DROP OWNED BY "{name}"'))
    await hand.execute(text(f'DROP ROLE "{name}"'))


def untold(diagnosis: Diagnosis) -> list[str]:
    return [
        finding.check
        for finding in diagnosis.findings
        if "this can't be told: permission denied" in finding.words
    ]


async def test_a_role_without_rights_is_told_what_it_may_not_see_and_the_rest(
    stranger: DatabaseSettings,
) -> None:
    found = await examined(stranger)

    assert worse_than_a_notice(found) == []
    assert untold(found) == ["revision", "default", "retention", "rollups"]
    # The catalog is everybody's to read.
    for check in ("drift", "partitions", "invalid_indexes", "locks", "clock", "pooler"):
        assert faults_of(check, found) == [], check


async def test_who_may_end_a_transaction_of_another_role_is_said(
    agentobs_database: DatabaseSettings, stranger: DatabaseSettings
) -> None:
    at_once = {"idle_transaction_age": timedelta(0), "transaction_age": timedelta(0)}
    async with connect_in_transaction(agentobs_database) as other:
        await other.execute(text("SELECT 1"))
        (mine,) = await findings_of("transactions", agentobs_database, **at_once)
        # First of all it may not look at them.
        fix(agentobs_database, await findings_of("transactions", stranger, **at_once))
        (theirs, *_) = await findings_of("transactions", stranger, **at_once)

    assert "To end it takes its role" not in mine.words
    assert theirs.words.endswith("To end it takes its role, or pg_signal_backend")


async def test_rights_that_are_granted_are_all_that_was_missing(
    agentobs_database: DatabaseSettings, stranger: DatabaseSettings
) -> None:
    refused = [
        finding
        for finding in (await examined(stranger)).findings
        if "this can't be told: permission denied" in finding.words
    ]

    fix(agentobs_database, refused[:1])

    assert untold(await examined(stranger)) == []


async def test_backends_of_others_that_it_may_not_see_are_counted(
    agentobs_database: DatabaseSettings, stranger: DatabaseSettings, hand: AsyncConnection
) -> None:
    assert await hand.scalar(text("SELECT 1"))

    (hidden,) = await findings_of("transactions", stranger)

    assert "backends of other roles can't be looked at" in hidden.words
    fix(agentobs_database, [hidden])
    assert await findings_of("transactions", stranger) == []


async def test_tables_that_it_may_not_read_are_not_estimated(
    agentobs_database: DatabaseSettings, stranger: DatabaseSettings, hand: AsyncConnection
) -> None:
    await insert_row(hand)
    await hand.execute(text(f"ANALYZE {EVENTS}"))

    (unseen,) = await findings_of("bloat", stranger, bloat_bytes=1)

    assert "1 tables are not looked at" in unseen.words
    fix(agentobs_database, [unseen])
    assert await findings_of("bloat", stranger, bloat_bytes=1_000_000) == []


async def test_a_check_that_takes_too_long_is_a_finding_and_the_others_are_made(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    # To read the table of revisions, one waits.
    await hand.execute(text("ALTER TABLE agentobs_partitions RENAME TO their_partitions"))
    await hand.execute(
        text(
            "CREATE VIEW agentobs_partitions AS SELECT their_partitions.* FROM their_partitions "
            "RIGHT JOIN pg_sleep(30) ON true"
        )
    )

    found = await examined(agentobs_database, check_timeout=timedelta(seconds=0.3))

    (late,) = faults_of("retention", found)
    assert late.severity is Severity.WARNING
    assert "the server has no answer within 0.3 s" in late.words
    assert late.fix == "agentobs doctor --timeout 3"
    assert faults_of("rollups", found) == []


async def test_a_check_that_meets_what_it_does_not_know_is_a_finding(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    await hand.execute(text("DELETE FROM agentobs_rollup_state"))

    (found,) = await findings_of("rollups", agentobs_database)

    assert found.severity is Severity.WARNING
    assert found.words == "this can't be told: NoResultFound"


@pytest.mark.parametrize("pooler", [None, "transaction"])
async def test_nothing_can_be_written_through_its_connection(
    agentobs_database: DatabaseSettings, pooler: str | None
) -> None:
    settings = agentobs_database.model_copy(update={"pooler": pooler})
    address = database_address(settings)
    async with open_connection(address, settings, timedelta(seconds=2)) as connection:
        for _ in range(2):
            with pytest.raises(ReadOnlyError):
                await insert_row(connection)
            await connection.rollback()
        await settle_for_good(connection, timedelta(seconds=2))
        for _ in range(2):
            with pytest.raises(ReadOnlyError):
                await insert_row(connection)


async def test_nothing_of_it_is_left_on_a_connection(
    agentobs_database: DatabaseSettings,
) -> None:
    address, limit = database_address(agentobs_database), timedelta(seconds=2)
    show = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
    async with open_connection(address, agentobs_database, limit) as connection:
        assert tuple((await connection.execute(show)).one()) == ("2s", "1s")
        await connection.exec_driver_sql("ROLLBACK")
        assert tuple((await connection.exec_driver_sql(show.text)).one()) == ("0", "0")


async def test_a_standby_is_looked_at_as_it_is() -> None:
    with private_server() as primary:
        await migrations.upgrade(settings=of_private(primary))
        async with connect(of_private(primary)) as connection:
            await insert_row(connection, METRICS)
        with primary.standby() as standby:
            found = await examined(of_private(standby))

            assert worse_than_a_notice(found) == []
            assert found.server is not None
            assert found.server.is_standby
            (standing_by,) = faults_of("addresses", found)
            assert "services, migrations and maintenance need the primary" in standing_by.words
            # A replica of readers is another server by nature.
            both = of_private(primary).model_copy(
                update={"read_url": of_private(standby).database_url}
            )
            assert worse_than_a_notice(await examined(both)) == []
