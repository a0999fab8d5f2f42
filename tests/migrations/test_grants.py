"""`agentobs db grant`: the SQL that it prints, what it runs, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text
from support.roles import as_role, quoted, roles
from support.shell import HEAD, agentobs, connect, psql

from agentobs import migrations
from agentobs.errors import ConfigurationError, MigrationError, UnknownRevisionError
from agentobs.migrations.grants import Grants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentobs import DatabaseSettings

RIGHTS = text("""
    SELECT CASE WHEN relispartition THEN 'a partition' ELSE relname END, privilege_type
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace, aclexplode(relacl)
    WHERE nspname = 'public' AND grantee = CAST(:role AS regrole)
    UNION ALL
    SELECT nspname, privilege_type FROM pg_namespace, aclexplode(nspacl)
    WHERE grantee = CAST(:role AS regrole)
    ORDER BY 1, 2
""")


@pytest_asyncio.fixture
async def two(agentobs_database: DatabaseSettings) -> AsyncIterator[tuple[str, str]]:
    """Yield a role that is to write, and one that is to read."""
    async with roles(agentobs_database, "writer", "reader") as (writer, reader):
        yield writer, reader


async def rights(settings: DatabaseSettings, role: str) -> list[tuple[str, str]]:
    async with connect(settings) as connection:
        found = await connection.execute(RIGHTS, {"role": quoted(role)})
        return [(name, privilege) for name, privilege in found]


def test_the_statements_name_schema_tables_and_roles_in_quotes() -> None:
    grants = Grants(writers=('w"1', "w2"), readers=("w2", "R"))

    usage, writing, version, sequence, reading = grants.statements('my "obs"')

    assert usage == 'GRANT USAGE ON SCHEMA "my ""obs""" TO "w""1", "w2", "R"'
    assert writing == (
        'GRANT SELECT, INSERT, UPDATE ON TABLE "my ""obs"""."agent_definitions", '
        '"my ""obs"""."agent_transformation_events", "my ""obs"""."router_performance_metrics" '
        'TO "w""1", "w2"'
    )
    assert version.startswith("GRANT SELECT ON TABLE ")
    assert sequence.startswith("GRANT SELECT ON SEQUENCE ")
    assert reading.endswith(' TO "w2", "R"')


async def test_what_is_printed_and_run_by_psql_is_what_apply_runs(
    agentobs_database: DatabaseSettings, two: tuple[str, str]
) -> None:
    async with roles(agentobs_database, "writer", "reader") as others:
        printed = agentobs(
            "db", "grant", "--writer", two[0], "--reader", two[1], settings=agentobs_database
        )
        assert printed.returncode == 0, printed.stderr
        assert "run it again with --apply" in printed.stderr
        assert [await rights(agentobs_database, role) for role in two] == [[], []]
        done = psql(agentobs_database, printed.stdout)
        assert (done.returncode, done.stderr) == (0, "")

        applied = agentobs(
            *("db", "grant", "--writer", others[0], "--reader", others[1], "--apply"),
            settings=agentobs_database,
        )

        assert (applied.returncode, applied.stderr) == (0, "")
        assert applied.stdout == f"{others[0]} may write\n{others[1]} may read\n"
        for role, other in zip(two, others, strict=True):
            found = await rights(agentobs_database, role)
            assert found != []
            assert found == await rights(agentobs_database, other)


async def test_a_writer_has_exactly_this(
    agentobs_database: DatabaseSettings, two: tuple[str, str]
) -> None:
    await migrations.grant(writers=[two[0]], apply=True, settings=agentobs_database)

    assert set(await rights(agentobs_database, two[0])) == {
        ("public", "USAGE"),
        ("agentobs_alembic_version", "SELECT"),
        ("agentobs_rollup_watermark", "SELECT"),
        *(
            (table, privilege)
            for table in (
                "agent_definitions",
                "agent_transformation_events",
                "router_performance_metrics",
            )
            for privilege in ("SELECT", "INSERT", "UPDATE")
        ),
    }


async def test_a_reader_has_nothing_but_the_right_to_read(
    agentobs_database: DatabaseSettings, two: tuple[str, str]
) -> None:
    await migrations.grant(readers=[two[1]], apply=True, settings=agentobs_database)

    found = await rights(agentobs_database, two[1])
    assert {privilege for _, privilege in found} == {"SELECT", "USAGE"}
    assert "a partition" not in {name for name, _ in found}


async def test_to_grant_again_changes_nothing_and_a_role_may_do_both(
    agentobs_database: DatabaseSettings, two: tuple[str, str]
) -> None:
    role = two[0]
    for _ in range(2):
        await migrations.grant(
            writers=[role, role], readers=[role], apply=True, settings=agentobs_database
        )

    found = await rights(agentobs_database, role)
    assert len(found) == len(set(found))
    assert {("agent_definitions", "UPDATE"), ("agentobs_partitions", "SELECT")} <= set(found)


async def test_the_schema_is_that_of_choice(empty: DatabaseSettings) -> None:
    settings = empty.model_copy(update={"schema_name": "obs"})
    await migrations.upgrade(settings=settings)

    async with roles(empty, "reader") as (role,):
        statements = await migrations.grant(readers=[role], apply=True, settings=settings)

        assert all('"obs"' in statement for statement in statements)
        async with connect(as_role(settings, role)) as connection:
            await connection.execute(text("SELECT FROM obs.agent_definitions"))


@pytest.mark.parametrize("name", ["nobody", "public", "none", "current_user", ""])
@pytest.mark.parametrize("apply", [True, False], ids=["apply", "print"])
async def test_a_role_that_does_not_exist_is_refused_and_nobody_is_granted_anything(
    agentobs_database: DatabaseSettings, two: tuple[str, str], name: str, apply: bool
) -> None:
    with pytest.raises(MigrationError, match=f"there is no role {name}: make it first"):
        await migrations.grant(writers=[two[0], name], apply=apply, settings=agentobs_database)

    assert await rights(agentobs_database, two[0]) == []


async def test_no_role_at_all_is_refused(agentobs_database: DatabaseSettings) -> None:
    with pytest.raises(ConfigurationError, match="no role is named"):
        await migrations.grant(settings=agentobs_database)

    done = agentobs("db", "grant", "--apply", settings=agentobs_database)
    assert done.returncode == 2
    assert "name a role by --writer or by --reader" in done.stderr


async def test_a_database_without_tables_is_refused(empty: DatabaseSettings) -> None:
    async with roles(empty, "reader") as (role,):
        done = agentobs("db", "grant", "--reader", role, settings=empty)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("agentobs: schema public has no tables of agentobs: run ")
    assert len(done.stderr.splitlines()) == 1


async def test_a_database_at_another_revision_is_refused(empty: DatabaseSettings) -> None:
    await migrations.upgrade("0003", settings=empty)
    async with roles(empty, "reader") as (role,):
        with pytest.raises(MigrationError, match=f"is at 0003 and the package at {HEAD}: run"):
            await migrations.grant(readers=[role], apply=True, settings=empty)
        async with connect(empty) as connection:
            await connection.execute(text("UPDATE agentobs_alembic_version SET version_num = 'x'"))
        with pytest.raises(UnknownRevisionError, match="a newer one migrated it"):
            await migrations.grant(readers=[role], apply=True, settings=empty)

        assert await rights(empty, role) == []


@pytest.mark.parametrize("of_role", ["", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}"])
async def test_who_does_not_own_the_tables_grants_nothing(
    agentobs_database: DatabaseSettings, two: tuple[str, str], of_role: str
) -> None:
    stranger, reader = two
    # Who has a right of its own is only warned by the server.
    own = [of_role] if of_role else ["GRANT SELECT ON agentobs_alembic_version TO {}"]
    async with connect(agentobs_database) as connection:
        for statement in own:
            await connection.exec_driver_sql(statement.format(quoted(stranger)))

    with pytest.raises(MigrationError, match="nothing was granted") as caught:
        await migrations.grant(
            readers=[reader], apply=True, settings=as_role(agentobs_database, stranger)
        )

    assert "as the owner of the schema and of its tables" in str(caught.value)
    assert await rights(agentobs_database, reader) == []


async def test_the_rights_outlive_a_downgrade_and_the_way_back(
    agentobs_database: DatabaseSettings, two: tuple[str, str]
) -> None:
    writer, reader = two
    granted = {"writers": [writer], "readers": [reader], "settings": agentobs_database}
    await migrations.grant(apply=True, **granted)  # type: ignore[arg-type]
    before = [await rights(agentobs_database, role) for role in two]

    await migrations.downgrade("0003", settings=agentobs_database)
    await migrations.upgrade(settings=agentobs_database)
    await migrations.grant(apply=True, **granted)  # type: ignore[arg-type]

    after = [set(await rights(agentobs_database, role)) for role in two]
    assert [set(each) <= found for each, found in zip(before, after, strict=True)] == [True, True]
    assert {privilege for _, privilege in after[1]} == {"SELECT", "USAGE"}
    assert not {("a partition", each) for each in ("INSERT", "UPDATE", "SELECT")} & after[0]
