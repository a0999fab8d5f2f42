"""Whatever of the package is printed shows no password, and nothing that a user has said."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from pydantic import SecretStr, ValidationError
from support.addresses import shown
from support.models import CANARY, new_definition, new_event, new_metric

from agentobs import (
    Alternative,
    Database,
    DatabaseSettings,
    Recorder,
    RoutingDecision,
    Transformation,
    create_engine,
    create_read_engine,
    create_session_factory,
)
from agentobs.analytics import Correction, TraceNode
from agentobs.analytics.failures import ErrorOfType
from agentobs.errors import AgentobsError, ConfigurationError
from agentobs.maintenance import Month, Policy
from agentobs.maintenance.archive import (
    Archive,
    ListedArchive,
    Manifest,
    list_archives,
    read_manifest,
    verify_archive,
)
from agentobs.maintenance.archive.folders import open_folder
from agentobs.maintenance.plan import DropExpired, ExpireMonth, ExpirePayload
from agentobs.maintenance.tables import EVENTS, MonthPartition
from agentobs.migrations.connection import migration_engine
from agentobs.recorder.dead_letters.writing import DeadLetter
from agentobs.registry import parse_document
from agentobs.sessions.address import database_address, migration_address, reading_address
from agentobs.sessions.urls import parse_url
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("bare_environment")
pytest_plugins = ["support.address_fixtures"]

URL = f"postgresql://agent:{CANARY}@db.invalid:5432/agents?sslpassword={CANARY}"
ARCHIVE = f"ftp://agent:{CANARY}@files.invalid/archives"
PART = MonthPartition(EVENTS, Month(2024, 2))


class Vault:
    """A source of passwords that shows what it holds."""

    def __call__(self) -> str:
        return CANARY

    def __repr__(self) -> str:
        return f"Vault({CANARY})"


def by_url() -> DatabaseSettings:
    secret = SecretStr(URL)
    return DatabaseSettings(database_url=secret, migration_url=secret, read_url=secret)


def by_parts(password: Any = CANARY) -> DatabaseSettings:
    return DatabaseSettings(host="db.invalid", user="agent", password=password)


def everything(settings: DatabaseSettings) -> list[Any]:
    """Return what is made of settings before anything is connected to."""
    engine = create_engine(settings)
    return [
        settings,
        settings.model_dump(mode="json"),
        database_address(settings),
        engine,
        engine.url,
        engine.pool,
        engine.sync_engine,
        engine.dialect,
        create_read_engine(settings),
        migration_engine(settings),
        create_session_factory(engine),
        create_session_factory(engine)(),
        Database(settings),
        Recorder(settings),
    ]


def require_hidden(made: object) -> None:
    for words in (repr(made), str(made), f"{made}", pprint.pformat(made)):
        assert CANARY not in words


@pytest.mark.parametrize(
    "settings",
    [by_url, by_parts, lambda: by_parts(SecretStr(CANARY)), lambda: by_parts(Vault())],
    ids=["url", "password", "secret", "callable"],
)
def test_what_is_made_of_settings_shows_no_password(
    settings: Callable[[], DatabaseSettings],
) -> None:
    for made in everything(settings()):
        require_hidden(made)


def test_addresses_show_no_password() -> None:
    for address in (database_address, migration_address, reading_address):
        require_hidden(address(by_url()))
    require_hidden(parse_url(URL, "AGENTOBS_DATABASE_URL"))


@pytest.mark.parametrize("name", ["HOST", "USER", "DATABASE"])
def test_a_url_in_the_place_of_a_part_is_refused_and_not_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AGENTOBS_{name}", URL)

    with pytest.raises(ConfigurationError, match=f"AGENTOBS_{name}.*AGENTOBS_DATABASE_URL") as one:
        read_settings()
    with pytest.raises(ValidationError) as other:
        DatabaseSettings()

    for error in (one.value, other.value):
        assert CANARY not in shown(error) + repr(error)


@pytest.mark.parametrize("host", [f"agent:{CANARY}@db.invalid:5432", f"agent:{CANARY}:5432"])
def test_a_host_with_a_login_is_refused_and_not_shown(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_address(DatabaseSettings(host=host))

    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize(
    "name",
    ["COMMAND_TIMEOUT", "DATABASE_URL", "HOST", "POOLER", "POOL_SIZE", "PORT", "SSLMODE"],
)
def test_a_setting_that_is_refused_is_not_quoted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", "db.invalid")
    monkeypatch.setenv(f"AGENTOBS_{name}", f"://{CANARY}")

    with pytest.raises(ConfigurationError, match=f"AGENTOBS_{name}") as caught:
        create_engine(read_settings())

    assert CANARY not in shown(caught.value)


def some_of(kind: Any, **values: str) -> object:
    """Return an answer of which only these fields are known."""
    made: object = kind.model_construct(**values)
    return made


RECORDS: dict[str, Callable[[], object]] = {
    "decision": lambda: RoutingDecision(
        user_request=CANARY,
        context={CANARY: CANARY},
        alternatives=[Alternative(agent="other", reason=CANARY)],
    ),
    "transformation": lambda: Transformation(
        target_agent="agent",
        user_request=CANARY,
        reason=CANARY,
        context_snapshot={CANARY: CANARY},
        error_message=CANARY,
    ),
    "event": lambda: new_event(
        user_request=CANARY, context_snapshot={CANARY: 1}, error_message=CANARY
    ),
    "metric": lambda: new_metric(cache_key=CANARY, feedback_details={CANARY: 1}),
    "definition": lambda: new_definition(
        yaml_config={CANARY: CANARY}, parsed_metadata={"a": CANARY}
    ),
    "document": lambda: parse_document(f"name: a\ntitle: {CANARY}\n".encode(), Path("a.yaml")),
    "dead letter": lambda: DeadLetter("decision", uuid4(), "refused", {"user_request": CANARY}),
    "node of a trace": lambda: some_of(
        TraceNode,
        user_request=CANARY,
        error_message=CANARY,
        transformation_reason=CANARY,
        context_json=CANARY,
    ),
    "example of an error": lambda: some_of(ErrorOfType, example_message=CANARY),
    "correction": lambda: some_of(Correction, details_json=CANARY),
}


@pytest.mark.parametrize("make", RECORDS.values(), ids=RECORDS)
def test_a_record_shows_nothing_that_a_user_has_said(make: Callable[[], object]) -> None:
    require_hidden(make())


def test_what_a_recorder_hands_out_shows_nothing_that_a_user_has_said(tmp_path: Path) -> None:
    with Recorder(by_parts(), folder=tmp_path, close_timeout=0.01) as recorder:
        decision = recorder.routing_decision(user_request=CANARY, context={CANARY: CANARY})
        run = recorder.transformation(
            target_agent="agent", user_request=CANARY, context_snapshot={CANARY: CANARY}
        )
        for made in (recorder, decision, run, recorder.statistics()):
            require_hidden(made)
    require_hidden(recorder.close())


@pytest.mark.parametrize(
    "made",
    [
        Policy(archive=ARCHIVE),
        ExpireMonth(PART, 1, ARCHIVE),
        ExpirePayload(PART, 1, ARCHIVE),
        DropExpired(PART, ARCHIVE),
        ListedArchive(ARCHIVE, "shown", None, None),
        Archive(ARCHIVE, "shown", cast("Manifest", None), is_new=True),
    ],
    ids=lambda made: type(made).__name__,
)
def test_the_password_of_an_archive_is_not_shown(made: object) -> None:
    require_hidden(made)


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://agent:{CANARY}@127.0.0.1:1/archives",
        f"simplecache::ftp://agent:{CANARY}@127.0.0.1:1/archives",
        f"zip://a::ftp://agent:{CANARY}@127.0.0.1:1/archives",
        f"nosuchscheme://agent:{CANARY}@files.invalid/archives",
        f"ftp://agent:x@files.invalid:{CANARY[-3:]}/archives",
        f"memory://agent:{CANARY}@files.invalid/archives/x.parquet",
    ],
)
def test_an_archive_that_can_not_be_reached_is_told_without_its_password(url: str) -> None:
    for asked in (verify_archive, read_manifest):
        with pytest.raises(AgentobsError) as caught:
            asked(f"{url}/y.parquet")
        assert CANARY not in shown(caught.value)


def test_an_archive_is_listed_without_its_password() -> None:
    url = f"memory://agent:{CANARY}@files.invalid/listed"
    folder = open_folder(url)
    with folder.create("a.manifest.json") as file:
        file.write(b"{}")

    (found,) = list_archives(url)

    assert CANARY in found.location
    require_hidden(found)
