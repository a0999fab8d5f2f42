"""Addresses of services, migrations and readers that lead astray, or through a pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy import make_url
from support.doctor import examined, faults_of, findings_of, of_private, worse_than_a_notice
from support.pgbouncer import needs_pgbouncer, pgbouncer
from support.pools import changed
from support.private_server import private_server

from agentobs.doctor import Severity
from agentobs.testing.databases import settings_for

if TYPE_CHECKING:
    from sqlalchemy import URL

    from agentobs import DatabaseSettings

NOWHERE = SecretStr("postgresql://owner@127.0.0.1:1/agents")


def exported(settings: DatabaseSettings, fix: str | None) -> DatabaseSettings:
    """Do in the settings what a line of a shell does in the environment."""
    assert fix is not None
    values: dict[str, object] = {}
    for line in fix.splitlines():
        word, _, rest = line.partition(" ")
        name, _, value = rest.partition("=")
        field = name.removeprefix("AGENTOBS_").lower()
        if value == "$AGENTOBS_MIGRATION_URL":
            values[field] = settings.migration_url
        elif word == "unset":
            values[field] = None
        else:
            values[field] = SecretStr(value) if field.endswith("url") else value
    return changed(settings, **values)


async def test_addresses_that_lead_to_one_database_are_right(
    agentobs_database: DatabaseSettings,
) -> None:
    url = agentobs_database.database_url
    settings = changed(agentobs_database, migration_url=url, read_url=url)

    assert worse_than_a_notice(await examined(settings)) == []


async def test_the_address_of_services_that_leads_nowhere_is_critical(
    agentobs_database: DatabaseSettings,
) -> None:
    settings = changed(
        agentobs_database, migration_url=agentobs_database.database_url, database_url=NOWHERE
    )

    (finding,) = faults_of("reachable", await examined(settings))

    assert (finding.subject, finding.severity) == ("AGENTOBS_DATABASE_URL", Severity.CRITICAL)


async def test_a_replica_that_is_away_is_a_warning(agentobs_database: DatabaseSettings) -> None:
    (finding,) = await findings_of("reachable", changed(agentobs_database, read_url=NOWHERE))

    assert (finding.subject, finding.severity) == ("AGENTOBS_READ_URL", Severity.WARNING)


async def test_an_address_of_another_database_is_replaced(
    agentobs_server: URL, agentobs_database: DatabaseSettings
) -> None:
    elsewhere = settings_for(agentobs_server, str(agentobs_server.database))
    settings = changed(
        elsewhere,
        migration_url=agentobs_database.database_url,
        read_url=elsewhere.database_url,
    )

    found = await findings_of("addresses", settings)

    assert [each.subject for each in found] == ["AGENTOBS_DATABASE_URL", "AGENTOBS_READ_URL"]
    for finding in found:
        settings = exported(settings, finding.fix)
    assert await findings_of("addresses", settings) == []


@needs_pgbouncer
async def test_a_pooler_that_nobody_told_of_is_detected(
    agentobs_server: URL, agentobs_database: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, agentobs_database, mode="transaction") as pooled:
        found = await examined(pooled)

        # Through it everything else is found as it is.
        assert {each.check for each in worse_than_a_notice(found)} == {"pooler"}
        services, migrations_ = faults_of("pooler", found)
        assert services.fix == "export AGENTOBS_POOLER=transaction"
        assert migrations_.fix is not None
        assert migrations_.fix.startswith("export AGENTOBS_MIGRATION_URL=postgresql://")
        told = changed(exported(pooled, services.fix), migration_url=agentobs_database.database_url)
        assert worse_than_a_notice(await examined(told)) == []


@needs_pgbouncer
async def test_a_pooler_in_the_way_of_migrations_is_detected(
    agentobs_server: URL, agentobs_database: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, agentobs_database, mode="transaction") as pooled:
        settings = changed(agentobs_database, migration_url=pooled.database_url)

        (finding,) = await findings_of("pooler", settings)

    assert finding.subject == "AGENTOBS_MIGRATION_URL"
    assert "migrations and maintenance refuse" in finding.words


@needs_pgbouncer
async def test_a_pooler_of_sessions_is_in_nobodys_way(
    agentobs_server: URL, agentobs_database: DatabaseSettings
) -> None:
    with pgbouncer(agentobs_server, agentobs_database, mode="session") as pooled:
        assert await findings_of("pooler", pooled) == []


@needs_pgbouncer
async def test_the_servers_own_address_is_known_where_it_has_one() -> None:
    with private_server() as server:
        direct = of_private(server)
        with pgbouncer(make_url(server.url()), direct, mode="transaction") as pooled:
            *_, finding = await findings_of("pooler", pooled)

    address = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    assert finding.fix == f"export AGENTOBS_MIGRATION_URL={address}"


async def test_a_pooler_that_is_not_there_is_told(agentobs_database: DatabaseSettings) -> None:
    settings = changed(agentobs_database, pooler="transaction")

    (finding,) = await findings_of("pooler", settings)

    assert finding.severity is Severity.NOTICE
    assert await findings_of("pooler", exported(settings, finding.fix)) == []
