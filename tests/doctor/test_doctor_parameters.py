"""Parameters of the server that should have another value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import findings_of, fix, of_private
from support.private_server import PrivateServer, private_server

from agentobs import migrations
from agentobs.doctor import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateServer]:
    with private_server() as found:
        yield found


PARAMETERS = {
    "enable_partition_pruning": "off",
    "constraint_exclusion": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "repeatable read",
    "idle_in_transaction_session_timeout": "0",
    "track_activities": "off",
    "track_counts": "off",
}


@pytest.mark.parametrize("where", ["DATABASE", "ROLE"])
@pytest.mark.parametrize("parameter", PARAMETERS)
async def test_a_parameter_is_changed_where_its_value_comes_from(
    private: PrivateServer, parameter: str, where: str
) -> None:
    private.sql(f"ALTER {where} postgres SET {parameter} = '{PARAMETERS[parameter]}'")
    settings = of_private(private)

    found = await findings_of("parameters", settings)

    own = [each for each in found if each.subject == parameter]
    assert len(own) == 1
    fix(settings, own)
    left = await findings_of("parameters", settings)
    assert parameter not in {each.subject for each in left}


@pytest.mark.parametrize("parameter", ["autovacuum", "full_page_writes"])
async def test_a_parameter_of_the_server_is_changed_for_all(
    private: PrivateServer, parameter: str
) -> None:
    private.sql(f"ALTER SYSTEM SET {parameter} = off")
    private.reload()
    settings = of_private(private)

    found = await findings_of("parameters", settings)

    own = [each for each in found if each.subject == parameter]
    assert [each.severity for each in own] == [Severity.WARNING]
    fix(settings, own)
    private.reload()
    left = await findings_of("parameters", settings)
    assert parameter not in {each.subject for each in left}


async def test_room_for_locks_is_raised_to_what_the_partitions_need(
    private: PrivateServer,
) -> None:
    private.sql("ALTER SYSTEM SET max_locks_per_transaction = 10")
    private.sql("ALTER SYSTEM SET max_connections = 12")
    private.restart()
    private.sql("CREATE DATABASE many")
    settings = of_private(private, database="many")
    await migrations.upgrade(settings=settings)

    found = await findings_of("parameters", settings)

    own = [each for each in found if each.subject == "max_locks_per_transaction"]
    assert len(own) == 1
    assert "is 10, which is room for 120 locks in all" in own[0].words
    fix(settings, own)
    private.restart()
    left = await findings_of("parameters", settings)
    assert "max_locks_per_transaction" not in {each.subject for each in left}
