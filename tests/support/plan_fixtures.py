"""The year of rows on which plans are told, made once a run: a plugin, named by the test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from support.plan_data import closed_months, fill
from support.shell import connect_in_transaction

from agentobs.keys import uuid7_floor
from agentobs.testing.databases import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings
    from agentobs.maintenance import Month


@dataclass(frozen=True)
class Year:
    """Twelve closed months, and the begun one that `now` lies in."""

    now: datetime

    @property
    def closed(self) -> list[Month]:
        return closed_months(self.now)

    @property
    def suffixes(self) -> set[str]:
        """What the names of the closed months' leaves end with."""
        return {month.suffix for month in self.closed}

    @property
    def last(self) -> Month:
        """The last month that is closed."""
        return self.closed[-1]

    @property
    def window(self) -> str:
        """Seven days of the last closed month, as a range of keys."""
        begin = self.last.first + timedelta(days=9)
        lower, upper = uuid7_floor(begin), uuid7_floor(begin + timedelta(days=7))
        return f"id >= '{lower}' AND id < '{upper}'"

    def ended_by(self, instant: datetime) -> set[str]:
        """Return the suffixes of the months that were over at an instant."""
        return {month.suffix for month in self.closed if month.end <= instant}


@pytest.fixture(scope="module")
def year(module_database: DatabaseSettings) -> Year:
    filled: list[datetime] = []

    async def work() -> None:
        filled.append(await fill(module_database))

    run(work())
    return Year(filled[0])


@pytest_asyncio.fixture
async def connection(
    module_database: DatabaseSettings, year: Year
) -> AsyncIterator[AsyncConnection]:
    """A transaction on the year's database, which is rolled back."""
    del year
    async with connect_in_transaction(module_database) as connection:
        yield connection
