"""Make, clone and drop the databases of a test run."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import NullPool, text
from sqlalchemy.dialects import postgresql

from agentobs.errors import DatabaseError
from agentobs.sessions.address import database_address
from agentobs.sessions.engine import engine_for
from agentobs.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from sqlalchemy import URL, Dialect

# Another parameter style would double each % in a name.
_DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_QUOTE = _DIALECT.identifier_preparer.quote_identifier


@contextmanager
def temporary_database(server: URL, *, template: str | None = None) -> Iterator[str]:
    """Make a database for the block, empty or a clone of `template`; yield its name."""
    name = f"agentobs_test_{uuid4().hex[:12]}"
    source = f" TEMPLATE {_QUOTE(template)}" if template else ""
    run(_execute(server, f"CREATE DATABASE {_QUOTE(name)}{source}"))
    try:
        yield name
    finally:
        run(_execute(server, f"DROP DATABASE {_QUOTE(name)} WITH (FORCE)"))


def settings_for(server: URL, database: str) -> DatabaseSettings:
    """Return settings that name a database of the server, whatever the environment says."""
    url = server.set(drivername="postgresql", database=database)
    # Built without validation, which would read the environment.
    # SQLAlchemy writes a space of the query as +, which libpq takes for itself.
    text = url.render_as_string(hide_password=False).replace("+", "%20")
    return DatabaseSettings.model_construct(database_url=SecretStr(text))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine from a fixture, beside whatever event loop the tests have."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


async def _execute(server: URL, statement: str) -> None:
    settings = settings_for(server, server.database or "postgres")
    engine = engine_for(
        database_address(settings),
        settings,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text(statement))
    except DatabaseError as error:
        # The driver's frames hold the password, and pytest may show what they hold.
        raise error.with_traceback(None) from None
    finally:
        await engine.dispose()
