"""Months of rows, runs of maintenance on them, and what the catalog says afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from support.event_rows import EVENTS, INSTANTS, insert_row

from agentobs.keys import uuid7_at
from agentobs.maintenance import Month, Policy, Watcher, maintain, plan_maintenance
from agentobs.maintenance.months import SLACK
from agentobs.maintenance.plan import FoldRollups

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance import Plan
    from agentobs.maintenance.plan import Step

    Look = Callable[[AsyncConnection], Awaitable[list[Any]]]

JANUARY, FEBRUARY, MARCH = Month(2024, 1), Month(2024, 2), Month(2024, 3)

_PARTITIONS = text(
    """
    SELECT part.relname FROM pg_inherits
    JOIN pg_class root ON root.oid = inhparent JOIN pg_class part ON part.oid = inhrelid
    WHERE root.relname = :table AND root.relkind = 'p' ORDER BY 1
    """
)
_OURS = "SELECT relname FROM pg_class WHERE relname ~ '_y\\d{4}m\\d{2}' AND relkind = 'r'"


def middle_of(month: Month) -> datetime:
    return month.first + timedelta(days=14)


async def add_row(
    connection: AsyncConnection, instant: datetime, table: str = EVENTS, **values: Any
) -> UUID:
    """Store a row whose id is of its instant."""
    row: dict[str, Any] = {"id": uuid7_at(instant), INSTANTS[table]: instant} | values
    return await insert_row(connection, table, **row)


async def add_rows(
    connection: AsyncConnection, month: Month, count: int, table: str = EVENTS, **values: Any
) -> list[UUID]:
    """Store rows of a month, a minute apart."""
    instants = [middle_of(month) + timedelta(minutes=number) for number in range(count)]
    return [await add_row(connection, instant, table, **values) for instant in instants]


def letting_go(
    month: Month, what: str = "keep", archive: str | Path | None = None, **values: Any
) -> Policy:
    """Return a policy by which the month goes, and none that is younger."""
    now = datetime.now(UTC)
    values[what] = now - (month.end + SLACK)
    return Policy(now=now, archive=str(archive) if archive else None, **values)


async def maintained(
    settings: DatabaseSettings, policy: Policy | None = None, **options: Any
) -> Plan:
    """Run maintenance, which nobody else is at."""
    plan = await maintain(policy, settings=settings, **options)
    assert plan is not None
    return plan


async def steps_left(settings: DatabaseSettings, policy: Policy | None = None) -> list[str]:
    """Return what is left to do with months; rollups, which are folded each hour, aside."""
    return of_months((await plan_maintenance(policy, settings=settings)).steps)


async def folds_left(settings: DatabaseSettings, policy: Policy | None = None) -> list[str]:
    plan = await plan_maintenance(policy, settings=settings)
    return [str(step) for step in plan.steps if isinstance(step, FoldRollups)]


def of_months(steps: Sequence[Step]) -> list[str]:
    return [str(step) for step in steps if not isinstance(step, FoldRollups)]


async def partitions_of(connection: AsyncConnection, table: str = EVENTS) -> list[str]:
    return list(await connection.scalars(_PARTITIONS, {"table": table}))


async def left_beside(connection: AsyncConnection) -> list[str]:
    """Return the tables of months that are no partitions, and the triggers that capture."""
    beside = await connection.scalars(text(f"{_OURS} AND NOT relispartition"))
    triggers = await connection.scalars(
        text("SELECT tgname FROM pg_trigger WHERE tgname = 'agentobs_capture'")
    )
    notes = await connection.scalars(text("SELECT table_name FROM agentobs_changed_rows"))
    return [*beside, *triggers, *notes]


async def texts_in(
    connection: AsyncConnection, table: str = EVENTS, where: str = "true"
) -> list[str]:
    """Return rows to the letter, in the order of their ids."""
    rows = await connection.scalars(
        text(f"SELECT t::text FROM {table} t WHERE {where} ORDER BY id")
    )
    return list(rows)


class Told(Watcher):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.blockers: list[str] = []
        self.progress: list[tuple[int, int]] = []

    def started(self, step: Step) -> None:
        self.steps.append(str(step))

    def progressed(self, rows: int, total: int) -> None:
        self.progress.append((rows, total))

    def blocked(self, blockers: Sequence[str]) -> None:
        self.blockers += blockers
