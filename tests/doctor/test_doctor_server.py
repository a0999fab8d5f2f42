"""Servers that can't be reached, are of another version, or tell another time."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.doctor import examined, faults_of, findings_of, fix, of_private
from support.private_server import PrivateServer, private_server

from agentobs import DatabaseSettings
from agentobs.doctor import Severity, connection, server

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = "unsaid"
NOWHERE = SecretStr(f"postgresql://owner:{SAID}@127.0.0.1:1/agents")


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateServer]:
    with private_server() as found:
        yield found


async def test_a_server_that_does_not_answer_is_critical_and_no_error() -> None:
    found = await examined(DatabaseSettings(database_url=NOWHERE))

    (finding,) = found.findings
    assert (finding.check, finding.severity) == ("reachable", Severity.CRITICAL)
    assert "can't connect to postgresql://owner@127.0.0.1:1/agents" in finding.words
    assert (
        finding.fix == "export AGENTOBS_DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    )
    assert found.server is None
    assert found.worst is Severity.CRITICAL
    assert SAID not in found.model_dump_json()


async def test_a_server_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_MOST_SECONDS_TO_CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://owner@127.0.0.1:{silent.getsockname()[1]}/agents"
        (finding,) = (await examined(DatabaseSettings(database_url=SecretStr(url)))).findings

    assert (finding.check, finding.severity) == ("reachable", Severity.CRITICAL)


async def test_a_database_that_is_not_there_is_made(private: PrivateServer) -> None:
    settings = of_private(private, database="away")

    (missing,) = await findings_of("reachable", settings)

    fix(of_private(private), [missing])
    assert await findings_of("reachable", settings) == []


async def test_a_role_that_may_not_connect_is_let_in(private: PrivateServer) -> None:
    private.sql("CREATE DATABASE closed")
    private.sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    private.sql(f"CREATE ROLE \"of them\" LOGIN PASSWORD '{SAID}'")
    settings = of_private(private, database="closed", username="of them", password=SAID)

    (refused,) = await findings_of("reachable", settings)

    fix(of_private(private), [refused])
    assert await findings_of("reachable", settings) == []


async def test_a_server_that_goes_away_meanwhile_leaves_what_was_found(
    private: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_and_tell() -> datetime:
        private.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'agentobs doctor'"
        )
        return datetime.now(UTC)

    monkeypatch.setattr(server, "_now", end_and_tell)

    found = await examined(of_private(private))

    (lost,) = faults_of("reachable", found)
    assert lost.severity is Severity.CRITICAL
    assert {each.check for each in found.findings} == {
        "reachable", "version", "addresses", "pooler",
    }  # fmt: skip
    assert found.server is not None


async def test_a_version_that_is_too_old_is_critical_and_nothing_else_is_looked_at(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OLDEST", 99)

    found = await examined(agentobs_database)

    (old,) = faults_of("version", found)
    assert (old.severity, found.worst) == (Severity.CRITICAL, Severity.CRITICAL)
    assert "is older than 99" in old.words
    assert {each.check for each in found.findings} == {"reachable", "version"}


async def test_a_version_that_is_newer_than_the_package_is_looked_at(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OLDEST", 1)
    monkeypatch.setattr(server, "NEWEST", 2)

    found = await examined(agentobs_database)

    (new,) = faults_of("version", found)
    assert (new.severity, new.fix) == (
        Severity.NOTICE, "pip install --upgrade agentobs-orm",
    )  # fmt: skip
    assert faults_of("revision", found) == []


async def test_a_clock_that_is_wrong_is_told_with_how_much(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await findings_of("clock", agentobs_database) == []

    def behind() -> datetime:
        return datetime.now(UTC) - timedelta(minutes=2)

    monkeypatch.setattr(server, "_now", behind)
    (ahead,) = await findings_of("clock", agentobs_database)

    assert ahead.severity is Severity.WARNING
    assert "the server's clock is 120.0 s ahead of this machine's" in ahead.words


async def test_a_clock_that_is_days_off_is_critical(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_now", lambda: datetime.now(UTC) + timedelta(days=3))

    (behind,) = await findings_of("clock", agentobs_database)

    assert behind.severity is Severity.CRITICAL
    assert "behind this machine's" in behind.words
