"""Texts that have broken other programs, and a look at all that they must leave alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from sqlalchemy import text
from support.shell import connect

from agentobs.migrations.connection import quoted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

CLASSICS = (
    "'; DROP TABLE canary.kept; --",
    '"; DROP TABLE canary.kept; --',
    "'); DELETE FROM canary.kept; --",
    "x' OR '1'='1",
    "x' UNION SELECT note FROM canary.kept --",
    "'||(SELECT note FROM canary.kept)||'",
    "'",
    "''",
    '"',
    '""',
    "\\",
    "\\'; DROP TABLE canary.kept; --",
    "E'\\x27'",
    "$$",
    "$$; DROP TABLE canary.kept; $$",
    "$agentobs$; DROP TABLE canary.kept; $agentobs$",
    "$1",
    "%",
    "%s",
    "%(name)s",
    "100%%",
    "_",
    ":name",
    "a :name b",
    "::text",
    "\\:name",
    "{}",
    "{0}",
    "{name}",
    "}}",
    "{schema}",
    "`id`",
    "$(id)",
    ";",
    "--",
    "/*",
    "*/",
    "\\.",
    "\\N",
    "a\tb\nc\rd",
    "\\copy canary.kept to '/tmp/x'",
    "NULL",
    "null",
    "{NULL}",
    '$.a ? (@ == "x")',
    "$[*]",
    "(a+)+$",
    "[",
    "[red]mark[/red]",
    "\x1b[31m",
    "\u2018quoted\u2019 \u201ctext\u201d",
    "\u02bc; DROP TABLE canary.kept; --",
    "\u202e\u200b",
    "é\u0301",
    "\U0001f980",
    "agent",
)
"""All of them are texts that PostgreSQL stores."""
UNSTORABLE = ("\x00", "a\x00b", "\ud800", "'\x00; DROP TABLE canary.kept; --")
LONG = "'" + "x" * 5_000
EVERYTHING = (*CLASSICS, *UNSTORABLE, LONG)
A_FEW = ("", *CLASSICS[:2], "\\", ":a", "%s", "{}")
"""For what takes its time with each."""

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=100)
STORABLE_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=60
)
# What means something to SQL is more often met with than other characters.
SQL_TEXT = st.text(st.sampled_from("'\"\\$;:%{}()[]-/*_.,@ \t\na1é"), min_size=1, max_size=60)
TEXTS = st.lists(ANY_TEXT | SQL_TEXT, min_size=1, max_size=20)
STORABLE_TEXTS = st.lists(STORABLE_TEXT | SQL_TEXT, min_size=1, max_size=20, unique=True)

_CANARY = """
    CREATE SCHEMA canary;
    CREATE TABLE canary.kept (id integer PRIMARY KEY, note text NOT NULL);
    INSERT INTO canary.kept VALUES (1, 'another one''s row');
"""
_OBJECTS = text(
    """
    WITH schemas AS (
        SELECT oid, nspname::text AS name FROM pg_namespace
        WHERE nspname !~ '^pg_(toast|temp|catalog)' AND nspname <> 'information_schema'
    )
    SELECT 'schema', name, '' FROM schemas
    UNION ALL
    SELECT name, relname::text, format('%s of %s', relkind, relowner::regrole)
    FROM pg_class JOIN schemas ON schemas.oid = relnamespace
    UNION ALL
    SELECT name, format('%s(%s)', proname, proargtypes), md5(prosrc)
    FROM pg_proc JOIN schemas ON schemas.oid = pronamespace
    UNION ALL
    SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger
    ORDER BY 1, 2, 3
    """
)
_TABLES = text(
    """
    SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence = 'p'
      AND nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY 1, 2
    """
)

State = dict[str, Any]


async def add_canary(settings: DatabaseSettings) -> None:
    """Give the database a table of somebody else, with a row in it."""
    async with connect(settings) as connection:
        for statement in _CANARY.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))


async def state_of(connection: AsyncConnection, but: Collection[str] = ()) -> State:
    """Return what there is: every object by name, and the rows of each table but some."""
    objects = [tuple(row) for row in await connection.execute(_OBJECTS)]
    tables = [tuple(row) for row in await connection.execute(_TABLES)]
    rows = {
        f"{schema}.{name}": await _rows_of(connection, schema, name)
        for schema, name in tables
        if name not in but
    }
    return {"objects": objects, "rows": rows}


@asynccontextmanager
async def nothing_else_changes(
    settings: DatabaseSettings, but: Collection[str] = ()
) -> AsyncIterator[None]:
    """Compare the database before and after the block; `but` are the tables that it writes to."""
    async with connect(settings) as connection:
        before = await state_of(connection, but)
        yield
        assert await state_of(connection, but) == before


async def now(settings: DatabaseSettings) -> State:
    """Return what there is in the database."""
    async with connect(settings) as connection:
        return await state_of(connection)


async def _rows_of(connection: AsyncConnection, schema: str, name: str) -> Mapping[str, Any]:
    table = f"{quoted(schema)}.{quoted(name)}"
    found = await connection.exec_driver_sql(
        f"SELECT count(*) AS rows, sum(hashtextextended(t::text, 0)) AS hashes FROM {table} t"
    )
    return dict(found.mappings().one())
