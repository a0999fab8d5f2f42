"""No log record at any level holds a password, a request or a context, whatever happens."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from support.addresses import settings_of, shown
from support.maintenance import FEBRUARY, letting_go, maintained, middle_of
from support.models import CANARY, new_event, new_metric
from support.private_server import private_server
from support.rollups import opened
from typer.testing import CliRunner

from agentobs import (
    AgentTransformationEvent,
    Database,
    Recorder,
    RoutingDecision,
    Transformation,
    create_engine,
    migrations,
)
from agentobs.analytics import Window, errors, feedback, trace
from agentobs.bulk import copy_rows
from agentobs.cli import app
from agentobs.errors import AgentobsError
from agentobs.keys import uuid7_at
from agentobs.maintenance import restore
from agentobs.maintenance.archive import list_archives, verify_archive
from agentobs.registry import find_agents_by_patterns, sync_folder
from agentobs.testing.databases import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.private_server import PrivateServer

    from agentobs import DatabaseSettings

pytest_plugins = ["support.address_fixtures"]

LOGGERS = ("", "agentobs", "alembic", "asyncio", "asyncpg", "fsspec", "sqlalchemy")
PAYLOAD: dict[str, Any] = {
    "user_request": CANARY,
    "context_snapshot": {CANARY: CANARY},
    "transformation_reason": CANARY,
    "error_message": CANARY,
}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as server:
        yield server


@pytest.fixture(scope="module")
def database(server: PrivateServer) -> DatabaseSettings:
    """Return the settings of a database at head, which asks for a password."""
    settings = settings_of(server.url())
    run(migrations.upgrade(settings=settings))
    return settings


@contextmanager
def nothing_is_logged_of(caplog: pytest.LogCaptureFixture, *secrets: str) -> Iterator[None]:
    """Let everybody log all that they can; none of it may hold a secret."""
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, name)
    yield
    told = "".join(
        f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records
    )
    assert "SELECT" in told or "agentobs" in caplog.text
    for secret in secrets:
        assert secret not in told + caplog.text


async def test_a_migration_logs_no_password(
    database: DatabaseSettings, server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = database.model_copy(update={"schema_name": "elsewhere"})
    with nothing_is_logged_of(caplog, server.password):
        await migrations.upgrade("0002", settings=elsewhere)
        with pytest.raises(AgentobsError):
            await migrations.check(settings=elsewhere)
        with pytest.raises(AgentobsError):
            await migrations.upgrade("0815", settings=elsewhere)
        await migrations.downgrade("base", settings=elsewhere)


async def test_a_service_logs_neither_password_nor_data(
    database: DatabaseSettings, server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_is_logged_of(caplog, server.password, CANARY):
        async with Database(database, echo="debug") as db:
            async with db.begin() as session:
                event = new_event(**PAYLOAD)
                session.add_all([event, new_metric(feedback_details={CANARY: CANARY})])
                await session.flush()
                await copy_rows(session, AgentTransformationEvent, [{"id": uuid4(), **_row()}])
            async with db.read_session() as session:
                await session.scalars(select(AgentTransformationEvent))
            with suppress(AgentobsError):
                async with db.begin() as session:
                    session.add(new_event(**PAYLOAD, agent_definition_id=uuid4()))
            with suppress(AgentobsError):
                async with db.connection() as connection:
                    await connection.execute(text("SELECT CAST(:value AS int)"), {"value": CANARY})


def _row() -> dict[str, Any]:
    return {"event_type": "x", "correlation_id": uuid4(), "target_agent": "a", **PAYLOAD}


async def test_questions_log_neither_password_nor_data(
    database: DatabaseSettings,
    server: PrivateServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\ntrigger_patterns: ['{CANARY}(']\n")
    window = Window(FEBRUARY.first, middle_of(FEBRUARY))
    with nothing_is_logged_of(caplog, server.password, CANARY):
        async with opened(database, echo="debug") as session:
            await sync_folder(session, tmp_path)
            await find_agents_by_patterns(session, CANARY)
            await trace(session, uuid4(), with_context=True)
            await errors(session, window, with_messages=True)
            await feedback(session, window, with_details=True)


@pytest.mark.parametrize("delivery", ["drop", "spool"])
def test_a_recorder_logs_neither_password_nor_data(
    database: DatabaseSettings,
    server: PrivateServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    delivery: Any,
) -> None:
    def fail(value: Any) -> Any:
        raise ValueError(f"{CANARY}: {value}")

    whole: dict[str, Any] = {"target_agent": "a", "reason": CANARY, "user_request": CANARY}
    whole |= {"context_snapshot": {CANARY: CANARY}, "error_message": CANARY, "success": False}
    with (
        nothing_is_logged_of(caplog, server.password, CANARY),
        Recorder(
            database, redact=fail, folder=tmp_path, delivery=delivery, flush_interval=0.05
        ) as recorder,
    ):
        recorder.record(Transformation(**whole))
        # Refused by the database, and before that by the recorder.
        recorder.record(Transformation(**whole, agent_definition_id=uuid4()))
        recorder.routing_decision(user_request=CANARY, context={CANARY: 1}, metric_type=CANARY * 9)
        decision = recorder.routing_decision(RoutingDecision(user_request=CANARY))
        recorder.feedback(decision, CANARY * 9, {CANARY: CANARY})
        recorder.feedback(decision, "x", CANARY)  # type: ignore[arg-type]
        with recorder.attach(CANARY), recorder.transformation(**_begun(whole)):
            pass


async def test_maintenance_and_the_archive_log_neither_password_nor_data(
    database: DatabaseSettings,
    server: PrivateServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    async with opened(database) as session:
        instant = middle_of(FEBRUARY)
        session.add(new_event(id=uuid7_at(instant), started_at=instant, **PAYLOAD))
        await session.commit()
    with nothing_is_logged_of(caplog, server.password, CANARY):
        await maintained(database, letting_go(FEBRUARY, "keep_payload", tmp_path))
        await maintained(database, letting_go(FEBRUARY, archive=tmp_path))
        for archive in list_archives(tmp_path):
            verify_archive(archive.location)
            with suppress(AgentobsError):
                await restore(archive.location, settings=database)


@pytest.mark.parametrize(
    "command",
    ["status", "workflows", "agents list", "alerts", "maintain", "db check", "db upgrade 0815"],
)
def test_a_command_prints_and_logs_no_password(
    server: PrivateServer,
    database: DatabaseSettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    del database
    for password in (server.password, CANARY):
        url = server.url(with_password=False).replace("@", f":{password}@")
        monkeypatch.setenv("AGENTOBS_DATABASE_URL", url)
        with nothing_is_logged_of(caplog, password):
            done = CliRunner().invoke(app, command.split())
        error = "" if done.exception is None else shown(done.exception)
        assert password not in done.output + done.stderr + error


def _from_a_file(folder: Path) -> dict[str, str]:
    file = folder / "pgpass"
    file.write_text(f"*:*:*:*:{CANARY}\n")
    file.chmod(0o600)
    return {"PGPASSFILE": str(file)}


def _from_a_service(folder: Path) -> dict[str, str]:
    file = folder / "services"
    file.write_text(f"[agents]\npassword={CANARY}\n")
    return {"PGSERVICEFILE": str(file), "PGSERVICE": "agents"}


def _from_a_variable(folder: Path) -> dict[str, str]:
    del folder
    return {"PGPASSWORD": CANARY}


@pytest.mark.usefixtures("bare_environment")
@pytest.mark.parametrize("source", [_from_a_file, _from_a_service, _from_a_variable])
async def test_a_password_that_the_driver_finds_by_itself_is_not_told(
    server: PrivateServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: Any,
) -> None:
    for name, value in source(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = settings_of(server.url(with_password=False))
    with nothing_is_logged_of(caplog, CANARY):
        engine = create_engine(settings)
        with pytest.raises(AgentobsError) as caught:
            await engine.connect()
        logging.getLogger("agentobs").error("%s %r", engine, settings, exc_info=caught.value)
        await engine.dispose()
    assert "password authentication failed" in str(caught.value)
    assert CANARY not in shown(caught.value)


def _begun(whole: dict[str, Any]) -> Any:
    return {name: whole[name] for name in ("target_agent", "reason", "user_request")}
