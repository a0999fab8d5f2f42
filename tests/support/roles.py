"""Roles of a test's own on its server, and the settings with which each connects."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import make_url, text
from support.shell import connect, url_of

from agentobs import migrations
from agentobs.testing.databases import run, settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

_PASSWORD = "of this test alone"  # noqa: S105

# A name that is quoted wherever it stands.
SCHEMA = 'agent "obs"'


class Granted(NamedTuple):
    """The settings of each role of a database whose tables stand in a schema of choice."""

    superuser: DatabaseSettings
    owner: DatabaseSettings
    writer: DatabaseSettings
    reader: DatabaseSettings


def as_role(settings: DatabaseSettings, name: str) -> DatabaseSettings:
    """Return settings with which the role connects to the same database."""
    url = make_url(url_of(settings)).set(username=name, password=_PASSWORD)
    hidden = SecretStr(url.render_as_string(hide_password=False).replace("+", "%20"))
    return settings.model_copy(update={"database_url": hidden})


def role_of(settings: DatabaseSettings) -> str:
    return make_url(url_of(settings)).username or ""


@asynccontextmanager
async def roles(settings: DatabaseSettings, *purposes: str) -> AsyncIterator[list[str]]:
    """Make a role for each purpose; drop it afterwards, with all that it owns."""
    names = names_for(*purposes)
    await make_roles(settings, names)
    try:
        yield names
    finally:
        await drop_roles(settings, names)


@contextmanager
def granted(server: URL) -> Iterator[Granted]:
    """Make a database at head with an owner, a writer and a reader, for a module of tests."""
    with temporary_database(server) as database:
        superuser = settings_for(server, database)
        names = names_for("owner", "writer", "reader")
        found = Granted(superuser, *(as_role(superuser, name) for name in names))
        found = Granted(*(each.model_copy(update={"schema_name": SCHEMA}) for each in found))
        run(make_roles(superuser, names))
        try:
            run(_make_tables(found, *names))
            yield found
        finally:
            run(drop_roles(superuser, names))


def names_for(*purposes: str) -> list[str]:
    """Return names that are to be quoted, and that no other test has."""
    return [f'{purpose} "{uuid4().hex[:8]}"' for purpose in purposes]


async def make_roles(settings: DatabaseSettings, names: Sequence[str]) -> None:
    async with connect(settings) as connection:
        for name in names:
            statement = f"CREATE ROLE {quoted(name)} LOGIN PASSWORD '{_PASSWORD}'"
            await connection.exec_driver_sql(statement)


async def drop_roles(settings: DatabaseSettings, names: Sequence[str]) -> None:
    async with connect(settings) as connection:
        for name in names:
            await connection.exec_driver_sql(f"DROP OWNED BY {quoted(name)} CASCADE")
        for name in names:
            await connection.exec_driver_sql(f"DROP ROLE {quoted(name)}")


async def make_schema(settings: DatabaseSettings, owner: str) -> None:
    """Give a role a schema, and take from everybody what a careful administrator does not give."""
    async with connect(settings) as connection:
        database = await connection.scalar(text("SELECT quote_ident(current_database())"))
        for statement in (
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO PUBLIC",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            f"CREATE SCHEMA {quoted(SCHEMA)} AUTHORIZATION {quoted(owner)}",
        ):
            await connection.exec_driver_sql(statement)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _make_tables(found: Granted, owner: str, writer: str, reader: str) -> None:
    await make_schema(found.superuser, owner)
    await migrations.upgrade(settings=found.owner)
    await migrations.grant(writers=[writer], readers=[reader], apply=True, settings=found.owner)
