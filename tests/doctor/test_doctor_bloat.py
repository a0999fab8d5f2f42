"""Dead rows, and room that is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from sqlalchemy import text
from support.doctor import findings_of, fix
from support.event_rows import METRICS
from support.pools import eventually
from support.shell import connect

from agentobs.doctor import Severity
from agentobs.maintenance import Month

if TYPE_CHECKING:
    from agentobs import DatabaseSettings
    from agentobs.doctor import Finding

LEAF = f"{METRICS}_{Month.of(datetime.now(UTC)).suffix}"
SOON = {"dead_rows": 10}
SMALL = {"bloat_bytes": 100_000}
FILL = f"""
    INSERT INTO {METRICS} (metric_type, selected_agent)
    SELECT 'routing_decision', 'agent-' || n % 20 FROM generate_series(1, 5000) AS n
"""


# The last page keeps a row, so that vacuum can't cut the others off.
THIN_OUT = f"DELETE FROM {METRICS} WHERE ctid < (SELECT max(ctid) FROM {METRICS})"


async def run(settings: DatabaseSettings, *statements: str) -> None:
    """Run statements in a session whose end lets everybody see what it has counted."""
    async with connect(settings) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def counted(
    number: int, check: str, settings: DatabaseSettings, **bounds: Any
) -> list[Finding]:
    """Wait for so many findings: before PostgreSQL 15, statistics come after the session's end."""
    found: list[Finding] = []

    async def is_found() -> bool:
        found[:] = await findings_of(check, settings, **bounds)
        return len(found) == number

    await eventually(is_found)
    return found


@pytest_asyncio.fixture(autouse=True)
async def _filled(agentobs_database: DatabaseSettings) -> None:
    """Fill a month, and keep autovacuum from what the test is about, by a bound of its own."""
    bound = "SET (autovacuum_vacuum_threshold = 1000000000)"
    await run(agentobs_database, f"ALTER TABLE {LEAF} {bound}", FILL)


async def test_dead_rows_that_vacuum_leaves_are_removed(
    agentobs_database: DatabaseSettings,
) -> None:
    await run(agentobs_database, f"UPDATE {METRICS} SET metric_type = 'x'")

    (dead,) = await counted(1, "dead_rows", agentobs_database, **SOON)

    assert (dead.subject, dead.severity) == (f"public.{LEAF}", Severity.WARNING)
    assert f"about 5,000 of 10,000 rows of {LEAF} are dead" in dead.words
    assert await findings_of("dead_rows", agentobs_database) == []
    fix(agentobs_database, [dead])
    await counted(0, "dead_rows", agentobs_database, **SOON)


async def test_autovacuum_that_is_off_for_a_table_is_put_on(
    agentobs_database: DatabaseSettings,
) -> None:
    await run(agentobs_database, f"ALTER TABLE {LEAF} SET (autovacuum_enabled = off)")

    (off,) = await findings_of("dead_rows", agentobs_database)

    assert "autovacuum is off" in off.words
    fix(agentobs_database, [off])
    assert await findings_of("dead_rows", agentobs_database) == []


async def test_room_that_rows_have_left_is_estimated_and_given_back(
    agentobs_database: DatabaseSettings,
) -> None:
    await run(agentobs_database, f"VACUUM (ANALYZE) {LEAF}")
    assert await findings_of("bloat", agentobs_database, **SMALL) == []
    await run(agentobs_database, THIN_OUT)
    await run(agentobs_database, f"VACUUM (ANALYZE) {LEAF}")

    (bloat,) = await counted(1, "bloat", agentobs_database, **SMALL)

    assert (bloat.subject, bloat.severity) == (f"public.{LEAF}", Severity.NOTICE)
    assert "an estimate" in bloat.words
    fix(agentobs_database, [bloat])
    await counted(0, "bloat", agentobs_database, **SMALL)


async def test_statistics_that_are_old_are_no_ground_for_an_estimate(
    agentobs_database: DatabaseSettings,
) -> None:
    await run(agentobs_database, THIN_OUT)
    await run(agentobs_database, f"VACUUM (ANALYZE) {LEAF}")
    await counted(1, "bloat", agentobs_database, **SMALL)
    await run(agentobs_database, FILL)

    await counted(0, "bloat", agentobs_database, **SMALL)
