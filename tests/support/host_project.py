"""A project that uses the package: models, Alembic, revisions and a version table of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import make_url
from support.shell import REPOSITORY, environment, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings

MODELS = """
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agentobs import AgentDefinition


class Host(DeclarativeBase):
    pass


class Order(Host):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None] = mapped_column(String(80))
"""

# As `alembic init -t async` makes it, but for its comments and logging.
ENV = """
import asyncio
import os

import agentobs
from agentobs import migrations
from alembic import context
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from models import Host

OPTIONS = {options}


def run(connection):
    context.configure(
        connection=connection, target_metadata={metadata}, compare_server_default=True, **OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()
    {afterwards}


async def run_on_own_connection():
    engine = create_async_engine(os.environ["HOST_DATABASE_URL"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={{"paramstyle": "named"}},
        **OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_on_own_connection())
"""

INI = """
[alembic]
script_location = %(here)s/migrations
prepend_sys_path = %(here)s
path_separator = newline
version_locations =
    %(here)s/migrations/versions
    {location}
"""

TEMPLATE = '''
"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''

FIRST = '''
"""Create orders."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = None
branch_labels = ("shop",)
depends_on = {depends_on!r}


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("note", sa.String(80)),
    )


def downgrade() -> None:
    op.drop_table("orders")
'''

FILTERS = '{"include_name": migrations.include_name, "include_object": migrations.include_object}'
BOTH = "[Host.metadata, agentobs.metadata]"


@dataclass(frozen=True)
class HostProject:
    """A project in a folder, whose Alembic works on the database of `settings`."""

    folder: Path
    settings: DatabaseSettings

    def write_env(
        self, *, options: str = FILTERS, metadata: str = "Host.metadata", afterwards: str = "pass"
    ) -> None:
        text = ENV.format(options=options, metadata=metadata, afterwards=afterwards)
        (self.folder / "migrations/env.py").write_text(text)

    def write_ini(self, location: str = "") -> None:
        (self.folder / "alembic.ini").write_text(INI.format(location=location))

    def write_first(self, revision: str = "a1", depends_on: str | None = None) -> None:
        text = FIRST.format(revision=revision, depends_on=depends_on)
        (self.folder / f"migrations/versions/{revision}_create_orders.py").write_text(text)

    def add_models(self, text: str) -> None:
        with (self.folder / "models.py").open("a") as file:
            file.write(text)

    def alembic(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run the command `alembic` in the project; a warning is an error."""
        # Of a schema without a table that it is to read, Alembic reads all.
        of_all = "ignore:Did not recognize type 'xid8'"
        return self.run("-W", "error", "-W", of_all, "-m", "alembic", *arguments, **extra)

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the project."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment(self.settings, HOST_DATABASE_URL=self.url, **self._path(), **extra),
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def url(self) -> str:
        url = make_url(url_of(self.settings)).set(drivername="postgresql+asyncpg")
        return url.render_as_string(hide_password=False)

    def revisions(self) -> Iterator[str]:
        """Iterate over the texts of the project's revisions but the first."""
        for path in sorted(self.folder.glob("migrations/versions/*.py")):
            if not path.name.endswith("_create_orders.py"):
                yield path.read_text()

    def _path(self) -> dict[str, str]:
        site = self.folder / "site"
        return {"PYTHONPATH": str(site)} if site.exists() else {}


def make_project(folder: Path, settings: DatabaseSettings) -> HostProject:
    """Write the project: an env.py with our filters, and a first revision."""
    (folder / "migrations/versions").mkdir(parents=True)
    (folder / "migrations/script.py.mako").write_text(TEMPLATE)
    (folder / "models.py").write_text(MODELS)
    project = HostProject(folder, settings)
    project.write_ini()
    project.write_env()
    project.write_first()
    return project


def install_package(site: Path) -> None:
    """Copy the package as the wheel installs it: the revisions are in it, not beside it."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "agentobs", site / "agentobs", ignore=skip)
    shutil.copytree(REPOSITORY / "alembic", site / "agentobs" / "alembic", ignore=skip)
    shutil.copy(REPOSITORY / "alembic.ini", site / "agentobs")
