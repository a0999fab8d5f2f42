"""From a partition, and into a table: what is refused, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.archives import (
    PARTITION,
    SCHEMA,
    SOURCE,
    archived,
    create_restored,
    differing_rows,
    restored,
    store_events,
)
from support.leaks import nothing_leaks
from support.models import CANARY

from agentobs import create_engine, migrations
from agentobs.errors import (
    ArchiveMismatchError,
    ConfigurationError,
    ConstraintError,
    SchemaMismatchError,
)
from agentobs.maintenance.archive import (
    fingerprint,
    is_unchanged,
    load_archive,
    write_archive,
)
from agentobs.maintenance.tables import METRICS, Schema

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from agentobs import DatabaseSettings


async def test_a_table_or_column_that_is_missing_is_named(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with agentobs_engine.connect() as connection:
        with pytest.raises(SchemaMismatchError, match="no_such_table is missing"):
            await write_archive(connection, replace(SOURCE, partition="no_such_table"), tmp_path)
        with pytest.raises(SchemaMismatchError, match="its columns other"):
            await write_archive(connection, SOURCE, tmp_path, payload=["other"])
    assert list(tmp_path.iterdir()) == []


async def test_rows_are_not_read_in_autocommit(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with agentobs_engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="not made in autocommit"):
            await write_archive(connection, SOURCE, tmp_path)
        with pytest.raises(ConfigurationError, match="not made in autocommit"):
            await fingerprint(connection, SCHEMA, PARTITION, ["id"])


async def test_rows_that_a_policy_hides_are_no_reason_to_forget_them(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    async with agentobs_engine.connect() as connection:
        for statement in (
            f"ALTER TABLE {PARTITION} ENABLE ROW LEVEL SECURITY",
            "CREATE ROLE archivist",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO archivist",
            "SET ROLE archivist",
        ):
            await connection.execute(text(statement))
        await connection.commit()
        with pytest.raises(Exception, match="row-level security"):
            await write_archive(connection, SOURCE, tmp_path)
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text("DROP OWNED BY archivist"))
        await connection.execute(text("DROP ROLE archivist"))
        await connection.commit()


async def test_only_a_table_that_it_fits_is_loaded(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    archive = await archived(agentobs_engine, tmp_path)
    async with agentobs_engine.begin() as connection:
        with pytest.raises(ArchiveMismatchError, match=r"is an archive of agent_.*, not router_"):
            await load_archive(
                connection, archive.location, schema=SCHEMA, table=METRICS, into="restored"
            )
        with pytest.raises(ArchiveMismatchError, match="is not empty"):
            await load_archive(
                connection, archive.location, schema=SCHEMA, table=SOURCE.table, into=PARTITION
            )
        await create_restored(connection)
        await connection.execute(text("ALTER TABLE restored DROP COLUMN error_type"))
        with pytest.raises(ArchiveMismatchError, match="lacks the columns error_type"):
            await load_archive(
                connection, archive.location, schema=SCHEMA, table=SOURCE.table, into="restored"
            )


async def test_a_column_that_came_later_has_its_default(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3)
    archive = await archived(agentobs_engine, tmp_path)
    async with agentobs_engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE agent_transformation_events ADD COLUMN later text DEFAULT 'x'")
        )

    await restored(agentobs_engine, archive.location)

    assert await differing_rows(agentobs_engine) == 0


async def test_a_trigger_that_changes_rows_on_their_way_is_found(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 3, user_request="why?")
    archive = await archived(agentobs_engine, tmp_path)
    async with agentobs_engine.begin() as connection:
        await create_restored(connection)
        await connection.execute(
            text(
                "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN NEW.user_request := NULL; RETURN NEW; END'"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER forget BEFORE INSERT ON restored "
                "FOR EACH ROW EXECUTE FUNCTION forget()"
            )
        )
        with pytest.raises(ArchiveMismatchError, match="are others than were archived"):
            await load_archive(
                connection, archive.location, schema=SCHEMA, table=SOURCE.table, into="restored"
            )


async def test_no_error_quotes_a_row(
    agentobs_engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store_events(agentobs_engine, 3, user_request=CANARY, target_agent=CANARY)
    archive = await archived(agentobs_engine, tmp_path)

    async with agentobs_engine.connect() as connection:
        await create_restored(connection)
        await connection.execute(
            text("ALTER TABLE restored ADD CHECK (target_agent NOT LIKE 'canary%')")
        )
        with nothing_leaks(caplog) as caught:
            await load_archive(
                connection, archive.location, schema=SCHEMA, table=SOURCE.table, into="restored"
            )
    assert isinstance(caught.error, ConstraintError)


async def test_a_schema_of_choice_has_archives_too(
    agentobs_empty_database: DatabaseSettings, tmp_path: Path
) -> None:
    chosen = Schema('The "Host"')
    settings = agentobs_empty_database.model_copy(update={"schema_name": chosen.name})
    await migrations.upgrade(settings=settings)
    engine = create_engine(settings)
    await store_events(engine, 3)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                f"INSERT INTO {chosen.qualified(SOURCE.table.original_ids)} "
                f"SELECT id, gen_random_uuid() FROM {chosen.qualified(SOURCE.table.name)}"
            )
        )

    async with engine.connect() as connection:
        archive = await write_archive(connection, replace(SOURCE, schema=chosen), tmp_path)
        restored_table = chosen.qualified("restored")
        await connection.execute(
            text(f"CREATE TABLE {restored_table} (LIKE {chosen.qualified(PARTITION)})")
        )
        loaded = await load_archive(
            connection, archive.location, schema=chosen, table=SOURCE.table, into="restored"
        )
        assert await is_unchanged(connection, chosen, "restored", loaded)
    await engine.dispose()

    assert (loaded.schema_name, loaded.rows, loaded.original_ids) == (chosen.name, 3, 3)
    assert loaded.schema_revision is not None
