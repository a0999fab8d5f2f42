from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from support import schema_at_0003 as expected
from support.catalog_snapshot import Catalog, read_catalog
from support.shell import connect

from agentobs import migrations

if TYPE_CHECKING:
    from agentobs import DatabaseSettings


@pytest_asyncio.fixture
async def catalog(empty: DatabaseSettings) -> Catalog:
    await migrations.upgrade("0003", settings=empty)
    async with connect(empty) as connection:
        return await read_catalog(connection)


async def test_the_tables_are_the_three_and_the_version_table(catalog: Catalog) -> None:
    assert dict(catalog["tables"]) == expected.TABLES | {migrations.VERSION_TABLE: None}
    assert catalog["other objects"] == []


async def test_each_column_is_as_the_schema_says_in_order(catalog: Catalog) -> None:
    for table, columns in expected.COLUMNS.items():
        found = [row[1:] for row in catalog["columns"] if row[0] == table]
        assert found == columns, table


async def test_each_constraint_has_its_name_and_text(catalog: Catalog) -> None:
    for table, constraints in expected.CONSTRAINTS.items():
        found = {name: text for owner, name, text in catalog["constraints"] if owner == table}
        assert found == constraints, table


async def test_each_index_has_its_method_order_and_predicate(catalog: Catalog) -> None:
    for table, indexes in expected.INDEXES.items():
        found = {row[1]: row[2] for row in catalog["indexes"] if row[0] == table}
        assert found == {
            name: f"CREATE {'UNIQUE ' if name in expected.UNIQUE_INDEXES else ''}INDEX {name} "
            f"ON public.{table} USING {text}"
            for name, text in indexes.items()
        }, table


async def test_there_are_34_indexes_of_the_three_kinds(catalog: Catalog) -> None:
    texts = [row[2] for row in catalog["indexes"] if row[0] in expected.TABLES]
    partial = [text for text in texts if " WHERE " in text]
    gin = [text for text in texts if " USING gin " in text]

    assert (len(texts), len(gin), len(partial)) == (34, 6, 8)


async def test_the_trigger_keeps_updated_at(catalog: Catalog) -> None:
    ((name, result, language, body),) = catalog["functions"]

    assert {row[1]: row[2] for row in catalog["triggers"]} == expected.TRIGGERS
    assert (name, result, language) == (expected.FUNCTION_NAME, "trigger", "plpgsql")
    assert " ".join(body.split()) == expected.FUNCTION_BODY


async def test_every_table_and_column_has_a_comment(catalog: Catalog) -> None:
    uncommented = [
        row[:2] for row in catalog["columns"] if row[0] in expected.TABLES and not row[5]
    ]

    assert uncommented == []
