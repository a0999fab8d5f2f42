"""Our revisions are a branch among those of a host, in its version table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.catalog_snapshot import read_catalog
from support.host_project import BOTH, HostProject, install_package, make_project
from support.shell import HEAD, agentobs, connect, psql

from agentobs import Database, migrations

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

BRANCH = "migrations.branch_options()"
IN_THE_WHEEL = "agentobs:alembic/versions"
# All of a run within one transaction that is the caller's.
PROGRAM = """
import asyncio
import os
import sys

from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine


def upgrade(connection):
    config = Config("alembic.ini")
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")


async def main():
    engine = create_async_engine(os.environ["HOST_DATABASE_URL"])
    async with engine.connect() as connection, connection.begin() as transaction:
        await connection.run_sync(upgrade)
        if "fail" in sys.argv:
            await transaction.rollback()
    await engine.dispose()


asyncio.run(main())
"""


@pytest.fixture
def project(tmp_path: Path, empty: DatabaseSettings) -> HostProject:
    """Return a project that names our revisions by their folder."""
    found = make_project(tmp_path, empty)
    found.write_ini(str(migrations.version_location()))
    found.write_env(options=BRANCH, metadata=BOTH)
    return found


def run(project: HostProject, *arguments: str, **extra: str) -> str:
    done = project.alembic(*arguments, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refusal(project: HostProject, *arguments: str, **extra: str) -> str:
    """Return the one line with which the command is refused."""
    # The warning with which Alembic passes over a clash is not ours to make an error of.
    done = project.run("-m", "alembic", *arguments, **extra)
    assert done.returncode != 0
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("agentobs: ")]
    assert "Traceback" not in done.stderr
    return line


async def versions(connection: AsyncConnection) -> set[str]:
    return set(await connection.scalars(text("SELECT version_num FROM alembic_version")))


async def tables(connection: AsyncConnection) -> set[str]:
    return {name for name, _ in (await read_catalog(connection))["tables"]}


async def test_the_host_upgrades_both_and_services_know_of_it(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "upgrade", "heads")

    assert await versions(connection) == {"a1", HEAD}
    assert await migrations.current(settings=project.settings) == HEAD
    await migrations.check(settings=project.settings)
    async with Database(project.settings) as database:
        health = await database.health()
    assert (health.ok, health.revision) == (True, HEAD)
    assert "No new upgrade operations detected" in run(project, "check")


async def test_the_catalog_is_that_of_our_own_run(
    project: HostProject, connection: AsyncConnection, agentobs_database: DatabaseSettings
) -> None:
    run(project, "upgrade", f"{HEAD}@head")

    async with connect(agentobs_database) as own:
        expected = await read_catalog(own)
    found = await read_catalog(connection)
    assert {
        kind: [row for row in rows if row[0] != "alembic_version"] for kind, rows in found.items()
    } == expected


async def test_each_branch_goes_back_alone(
    project: HostProject, connection: AsyncConnection
) -> None:
    run(project, "upgrade", "heads")

    run(project, "downgrade", "shop@base")
    assert await versions(connection) == {HEAD}
    assert await migrations.current(settings=project.settings) == HEAD

    run(project, "upgrade", "heads")
    run(project, "downgrade", "0003")
    assert await migrations.current(settings=project.settings) == "0003"
    run(project, "downgrade", "0001@base")
    assert await versions(connection) == {"a1"}
    assert await tables(connection) == {"orders", "alembic_version"}
    assert await migrations.current(settings=project.settings) is None


async def test_a_revision_of_the_hosts_may_depend_on_one_of_ours(
    project: HostProject, connection: AsyncConnection
) -> None:
    project.write_first(depends_on=HEAD)

    run(project, "upgrade", "shop@head")

    assert {"orders", "agent_definitions"} < await tables(connection)
    assert await migrations.current(settings=project.settings) == HEAD


async def test_a_stamp_is_recorded_as_well(project: HostProject) -> None:
    project.write_first(depends_on=HEAD)
    run(project, "upgrade", "heads")

    run(project, "stamp", "base")
    assert await migrations.current(settings=project.settings) is None
    run(project, "stamp", "shop@head")
    assert await migrations.current(settings=project.settings) == HEAD


async def test_a_database_with_two_version_tables_changes_over_by_a_stamp(
    project: HostProject, connection: AsyncConnection
) -> None:
    await migrations.upgrade(settings=project.settings)
    run(project, "upgrade", "shop@head")

    run(project, "stamp", "heads")
    run(project, "upgrade", "heads")

    assert await versions(connection) == {"a1", HEAD}
    assert await migrations.current(settings=project.settings) == HEAD


async def test_a_new_revision_goes_to_the_hosts_branch(project: HostProject) -> None:
    run(project, "upgrade", "heads")
    project.add_models("""

class Invoice(Host):
    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
""")

    run(project, "revision", "--autogenerate", "-m", "invoices", "--head", "shop@head")

    (made,) = project.revisions()
    assert "down_revision = 'a1'" in made
    assert made.count("op.") == 2
    run(project, "upgrade", "heads")
    assert "No new upgrade operations detected" in run(project, "check")


async def test_the_sql_of_both_is_printed_by_one_command(
    project: HostProject, connection: AsyncConnection
) -> None:
    sql = run(project, "upgrade", "heads", "--sql")
    done = psql(project.settings, sql)

    assert done.returncode == 0, done.stderr
    assert await versions(connection) == {"a1", HEAD}
    await migrations.check(settings=project.settings)
    assert "No new upgrade operations detected" in run(project, "check")


@pytest.mark.parametrize("end", ["commit", "fail"])
async def test_all_of_it_may_be_one_transaction_of_the_callers(
    project: HostProject, connection: AsyncConnection, end: str
) -> None:
    done = project.run("-W", "error", "-c", PROGRAM, end)

    assert done.returncode == 0, done.stderr
    if end == "fail":
        assert await tables(connection) == set()
        return
    assert await versions(connection) == {"a1", HEAD}
    await migrations.check(settings=project.settings)


async def test_the_wheel_names_its_revisions_as_a_resource(
    tmp_path: Path, empty: DatabaseSettings, connection: AsyncConnection
) -> None:
    project = make_project(tmp_path, empty)
    install_package(tmp_path / "site")
    project.write_ini(IN_THE_WHEEL)
    project.write_env(options=BRANCH)

    run(project, "upgrade", "heads")

    assert await versions(connection) == {"a1", HEAD}
    assert await migrations.current(settings=empty) == HEAD


@pytest.mark.parametrize("order", ["ours last", "ours first"])
async def test_an_id_that_both_have_is_refused(
    project: HostProject, connection: AsyncConnection, order: str
) -> None:
    for path in project.folder.glob("migrations/versions/*.py"):
        path.unlink()
    project.write_first(revision="0001")
    if order == "ours first":
        ini = project.folder / "alembic.ini"
        hosts, ours = "%(here)s/migrations/versions", str(migrations.version_location())
        text = ini.read_text().replace(ours, "").replace(hosts, f"{ours}\n    {hosts}")
        ini.write_text(text)

    line = refusal(project, "upgrade", "0001")

    assert "0001 are ids of revisions of yours and of ours" in line
    assert "upgrade_with_host()" in line
    assert await tables(connection) == set()


async def test_revisions_that_are_not_named_are_missed(
    project: HostProject, connection: AsyncConnection
) -> None:
    project.write_ini()

    assert "version_locations does not name our revisions" in refusal(project, "upgrade", "heads")
    assert await tables(connection) == set()


async def test_a_schema_that_is_not_the_connections_is_refused(
    project: HostProject, connection: AsyncConnection
) -> None:
    line = refusal(project, "upgrade", "0001", AGENTOBS_SCHEMA="obs")

    assert "in the schema of your connection, public, and AGENTOBS_SCHEMA names obs" in line
    assert await tables(connection) == set()
    run(project, "upgrade", "0001", AGENTOBS_SCHEMA="public")


async def test_our_own_upgrade_finds_nothing_to_do_beside_the_branch(project: HostProject) -> None:
    run(project, "upgrade", "heads")

    done = agentobs("db", "upgrade", settings=project.settings)

    assert done.returncode == 0
    assert f"schema public is at {HEAD}: nothing to do" in done.stderr
