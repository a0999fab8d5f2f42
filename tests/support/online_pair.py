"""Two databases that are to end alike: one upgraded under locks, one while others write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.event_rows import INSTANTS
from support.scripted import fill_old_tables
from support.shell import connect, psql

from agentobs import migrations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentobs import DatabaseSettings

Pair = tuple["DatabaseSettings", "DatabaseSettings"]


async def fill(settings: DatabaseSettings, *changes: str) -> None:
    await migrations.upgrade("0004", settings=settings)
    await fill_old_tables(settings)
    await change(settings, *changes)


async def fill_both(pair: Pair) -> None:
    for settings in pair:
        await fill(settings)


async def change(settings: DatabaseSettings, *changes: str) -> None:
    async with connect(settings) as connection:
        for statement in changes:
            await connection.exec_driver_sql(statement)


async def rows_of(settings: DatabaseSettings) -> dict[str, Any]:
    async with connect(settings) as connection:
        return {
            table: sorted((await connection.scalars(text(f"SELECT t::text FROM {table} t"))).all())
            for each in INSTANTS
            for table in (each, f"{each}_original_ids")
        }


async def require_same(locked: DatabaseSettings, online: DatabaseSettings) -> None:
    async with connect(locked) as one, connect(online) as other:
        expected, found = await read_catalog(one), await read_catalog(other)
    for kind in expected:
        assert found[kind] == expected[kind], kind
    assert await rows_of(online) == await rows_of(locked)


def write(settings: DatabaseSettings, statements: Iterable[str]) -> None:
    """Run each of them as a writer of its own would."""
    for statement in statements:
        done = psql(settings, statement)
        assert done.returncode == 0, done.stderr


async def require_same_after(
    statements: Iterable[str], locked: DatabaseSettings, online: DatabaseSettings
) -> None:
    """Write to the one what was written to the other, upgrade it, and compare them."""
    write(locked, statements)
    await migrations.upgrade(settings=locked)
    await require_same(locked, online)
