from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from agentobs import DatabaseSettings
from agentobs.sessions.address import database_address, migration_address

URL = "postgresql://agent:swordfish@db.example:5432/agents"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("AGENTOBS_"):
            monkeypatch.delenv(name)


def test_nothing_is_set_where_the_environment_says_nothing() -> None:
    settings = DatabaseSettings()

    assert settings.database_url is None
    assert settings.migration_url is None
    assert not settings.names_database
    assert not settings.names_database_for_migrations
    assert settings.schema_name is None
    assert settings.data_dir is None
    assert settings.migration_lock_wait == 600


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", URL)
    monkeypatch.setenv("AGENTOBS_MIGRATION_URL", f"{URL}_direct")
    monkeypatch.setenv("AGENTOBS_SCHEMA", "obs")
    monkeypatch.setenv("AGENTOBS_MIGRATION_LOCK_WAIT", "2.5")
    monkeypatch.setenv("AGENTOBS_DATA_DIR", "/srv/agents")

    assert DatabaseSettings() == DatabaseSettings(
        database_url=SecretStr(URL),
        migration_url=SecretStr(f"{URL}_direct"),
        schema_name="obs",
        migration_lock_wait=2.5,
        data_dir=Path("/srv/agents"),
    )


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "MIGRATION_URL", "SCHEMA", "MIGRATION_LOCK_WAIT", "DATA_DIR"):
        monkeypatch.setenv(f"AGENTOBS_{name}", "")

    assert DatabaseSettings().model_fields_set == set()


def test_an_unknown_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_TEST_DATABASE_URL", URL)
    monkeypatch.setenv("AGENTOBS_FROM_A_LATER_RELEASE", "1")

    assert DatabaseSettings().model_fields_set == set()


@pytest.mark.parametrize("name", ["SCHEMA", "SCHEMA_NAME", "DATABASE_URL"])
def test_a_variable_without_the_prefix_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "host")

    assert DatabaseSettings().model_fields_set == set()


def test_what_the_caller_says_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_SCHEMA", "obs")
    monkeypatch.setenv("AGENTOBS_MIGRATION_URL", URL)

    assert DatabaseSettings(schema_name="other").schema_name == "other"
    assert DatabaseSettings(schema_name=None).schema_name is None
    assert DatabaseSettings(migration_url=None).migration_url is None


def test_migrations_take_the_direct_url_where_there_is_one() -> None:
    pooled, direct = SecretStr(URL), SecretStr(f"{URL}_direct")

    assert DatabaseSettings(database_url=pooled).names_database_for_migrations
    both = DatabaseSettings(database_url=pooled, migration_url=direct)
    assert migration_address(both).url.database == "agents_direct"
    assert migration_address(both).setting == "AGENTOBS_MIGRATION_URL"


def test_no_url_is_shown() -> None:
    settings = DatabaseSettings(database_url=SecretStr(URL), migration_url=SecretStr(URL))

    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    assert "swordfish" not in shown
    assert "db.example" not in shown


@pytest.mark.parametrize("field", sorted(DatabaseSettings.model_fields))
def test_settings_are_immutable(field: str) -> None:
    settings = DatabaseSettings()

    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, field, None)


def test_equal_settings_are_one_key() -> None:
    one, other = DatabaseSettings(schema_name="obs"), DatabaseSettings(schema_name="obs")

    assert {one: "pool"}[other] == "pool"


@pytest.mark.parametrize("name", ["obs", 'Odd "Name"', "s" * 63, "ü" * 31])
def test_any_identifier_of_postgresql_is_a_schema_name(name: str) -> None:
    assert DatabaseSettings(schema_name=name).schema_name == name


@pytest.mark.parametrize("name", ["", "s" * 64, "ü" * 32, "nul\x00"])
def test_a_schema_name_that_postgresql_would_cut_or_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="1 to 63 bytes"):
        DatabaseSettings(schema_name=name)


@pytest.mark.parametrize("wait", ["-1", "nan", "soon"])
def test_a_wait_that_is_no_duration_is_refused_without_quoting_it(
    monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    monkeypatch.setenv("AGENTOBS_MIGRATION_LOCK_WAIT", wait)

    with pytest.raises(ValidationError, match="migration_lock_wait") as caught:
        DatabaseSettings()
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("name", ["pg_mine", "information_schema", "$user", "", "x" * 64, "a\x00b"])
def test_a_schema_that_cannot_be_the_hosts_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        DatabaseSettings(schema_name=name)


@pytest.mark.parametrize(
    ("variable", "given"),
    [("DATABASE_URL", {"host": "db.example"}), ("HOST", {"database_url": SecretStr(URL)})],
)
def test_an_address_that_the_caller_gives_stands_alone(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: dict[str, Any]
) -> None:
    monkeypatch.setenv(f"AGENTOBS_{variable}", URL)
    monkeypatch.setenv("AGENTOBS_SCHEMA", "obs")

    settings = DatabaseSettings(**given)

    assert "db.example" in database_address(settings).place
    assert settings.schema_name == "obs"


def test_a_misspelled_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="pol_size"):
        DatabaseSettings(pol_size=3)  # type: ignore[call-arg]
