from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.addresses import settings_of, shown

from agentobs import DatabaseSettings, create_engine
from agentobs.errors import ConfigurationError
from agentobs.sessions.address import (
    Address,
    database_address,
    migration_address,
    reading_address,
)
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentobs.settings import PasswordSource

pytestmark = pytest.mark.usefixtures("bare_environment")
pytest_plugins = ["support.address_fixtures"]

PASSWORD = "swordfish"  # noqa: S105 (no one's password)
URL = "postgresql://agent@db.example:5433/agents"
URL_WITH_PASSWORD = f"postgresql://agent:{PASSWORD}@db.example:5433/agents"
ADDRESSES = {
    "AGENTOBS_DATABASE_URL": database_address,
    "AGENTOBS_MIGRATION_URL": migration_address,
    "AGENTOBS_READ_URL": reading_address,
}


def give_token(token: str) -> str:
    return token


def set_parts(environment: pytest.MonkeyPatch) -> None:
    parts = {
        "HOST": "db.example",
        "PORT": "5433",
        "USER": "agent",
        "PASSWORD": PASSWORD,
        "DATABASE": "agents",
        "SSLMODE": "require",
        "TARGET_SESSION_ATTRS": "primary",
    }
    for name, value in parts.items():
        environment.setenv(f"AGENTOBS_{name}", value)


def test_the_parts_of_the_environment_are_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    set_parts(monkeypatch)

    address = database_address(read_settings())

    assert address.place == "postgresql://agent@db.example:5433/agents"
    assert (address.url.username, address.url.database) == ("agent", "agents")
    assert address.arguments == {
        "timeout": 60.0,
        "host": ["db.example"],
        "port": [5433],
        "password": PASSWORD,
        "dsn": "postgresql://?sslmode=require",
        "target_session_attrs": "primary",
    }


def test_the_parts_and_the_url_of_the_same_place_are_the_same_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_parts(monkeypatch)
    url = f"{URL_WITH_PASSWORD}?sslmode=require&target_session_attrs=primary"
    by_parts = database_address(read_settings())

    by_url = database_address(DatabaseSettings.model_construct(database_url=SecretStr(url)))

    assert (by_parts.place, by_parts.url) == (by_url.place, by_url.url)
    assert by_parts.arguments == by_url.arguments


def test_a_host_alone_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", "db.example")

    address = database_address(read_settings())

    assert address.place == "postgresql://db.example/"
    assert address.arguments == {"timeout": 60.0, "host": ["db.example"], "port": None}


@pytest.mark.parametrize(
    ("hosts", "port", "ports"),
    [
        ("db1,db2", None, None),
        ("db1,db2", "5433", [5433, 5433]),
        ("db1:5433,db2:5434", None, [5433, 5434]),
        ("db1:5433,db2", None, [5433, 5432]),
    ],
)
def test_several_hosts_are_named_in_one_variable(
    monkeypatch: pytest.MonkeyPatch, hosts: str, port: str | None, ports: list[int] | None
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", hosts)
    monkeypatch.setenv("AGENTOBS_PORT", port or "")

    arguments = database_address(read_settings()).arguments

    assert arguments["host"] == ["db1", "db2"]
    assert arguments["port"] == ports


def test_the_folder_of_a_socket_is_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", "/run/postgresql")

    address = database_address(read_settings())

    assert address.arguments["host"] == ["/run/postgresql"]
    assert address.url.host is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENTOBS_PORT", "swordfish"),
        ("AGENTOBS_PORT", "0"),
        ("AGENTOBS_PORT", "65536"),
        ("AGENTOBS_SSLMODE", "swordfish"),
        ("AGENTOBS_TARGET_SESSION_ATTRS", "swordfish"),
        ("AGENTOBS_CONNECT_TIMEOUT", "swordfish"),
        ("AGENTOBS_POOLER", "swordfish"),
    ],
)
def test_a_wrong_part_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", "db.example")
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=f"^{name}: ") as caught:
        create_engine()

    assert caught.value.setting == name
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize("hosts", ["db1,", ",db2", "db.example:port", "db.example:70000"])
def test_a_wrong_host_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", hosts)

    with pytest.raises(ConfigurationError, match=r"^AGENTOBS_HOST ") as caught:
        create_engine()

    assert caught.value.setting == "AGENTOBS_HOST"


def test_without_an_address_both_ways_to_give_one_are_named() -> None:
    with pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL is not set") as caught:
        database_address(read_settings())

    assert "AGENTOBS_HOST" in str(caught.value)
    assert caught.value.setting == "AGENTOBS_DATABASE_URL"


@pytest.mark.parametrize("address_of", ADDRESSES.values())
@pytest.mark.parametrize("part", ["host", "port", "user", "database"])
def test_a_url_and_a_part_of_the_place_are_refused_together(
    part: str, address_of: Callable[[DatabaseSettings], Address]
) -> None:
    settings = settings_of(URL, **{part: 5433 if part == "port" else "db.example"})

    with pytest.raises(ConfigurationError) as caught:
        address_of(settings)

    assert str(caught.value).startswith(f"AGENTOBS_DATABASE_URL and AGENTOBS_{part.upper()} both ")


@pytest.mark.parametrize("password", [PASSWORD, partial(give_token, PASSWORD)])
def test_two_passwords_are_refused(password: str | PasswordSource) -> None:
    settings = DatabaseSettings(database_url=SecretStr(URL_WITH_PASSWORD), password=password)

    with pytest.raises(ConfigurationError, match=r"^AGENTOBS_DATABASE_URL holds a") as caught:
        database_address(settings)

    assert "AGENTOBS_PASSWORD" in str(caught.value)
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize("field", ["migration_url", "read_url"])
def test_a_url_of_its_own_logs_in_by_its_own_password(field: str) -> None:
    own = {field: SecretStr(URL_WITH_PASSWORD)}
    settings = DatabaseSettings(database_url=SecretStr(URL), password="services", **own)  # type: ignore[arg-type]  # noqa: S106
    address_of = migration_address if field == "migration_url" else reading_address

    assert address_of(settings).arguments["password"] == PASSWORD
    assert database_address(settings).arguments["password"] == "services"  # noqa: S105


def test_which_of_several_hosts_services_use_says_nothing_of_the_replica() -> None:
    settings = DatabaseSettings(
        database_url=SecretStr(URL), read_url=SecretStr(URL), target_session_attrs="primary"
    )

    assert database_address(settings).arguments["target_session_attrs"] == "primary"
    assert "target_session_attrs" not in reading_address(settings).arguments


def test_a_url_without_a_password_takes_that_of_the_settings() -> None:
    address = database_address(settings_of(URL, password=PASSWORD))

    assert address.arguments["password"] == PASSWORD


@pytest.mark.parametrize(("query", "mode"), [("", "require"), ("?sslmode=disable", "disable")])
def test_beside_a_url_a_setting_of_tls_is_a_default(query: str, mode: str) -> None:
    address = database_address(settings_of(f"{URL}{query}", sslmode="require"))

    assert address.arguments["dsn"] == f"postgresql://?sslmode={mode}"


@pytest.mark.parametrize(
    ("query", "timeout"), [("", 7.5), ("?connect_timeout=3", 3.0), ("?connect_timeout=0", None)]
)
def test_the_connect_timeout_of_a_url_wins(query: str, timeout: float | None) -> None:
    address = database_address(settings_of(f"{URL}{query}", connect_timeout=7.5))

    assert address.arguments["timeout"] == timeout


def test_a_connect_timeout_of_0_is_no_limit() -> None:
    assert database_address(settings_of(URL, connect_timeout=0)).arguments["timeout"] is None


@pytest.mark.parametrize("setting", ["AGENTOBS_MIGRATION_URL", "AGENTOBS_READ_URL"])
def test_a_url_for_one_purpose_wins_over_that_of_the_services(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", URL)
    monkeypatch.setenv(setting, "postgresql://other@replica.example/agents")
    settings = read_settings()

    address = ADDRESSES[setting](settings)

    assert address.setting == setting
    assert address.place == f"postgresql://other@replica.example/agents ({setting})"
    assert database_address(settings).place == URL


@pytest.mark.parametrize("address_of", [migration_address, reading_address])
def test_without_a_url_for_its_purpose_an_address_is_that_of_the_services(
    monkeypatch: pytest.MonkeyPatch, address_of: Callable[[DatabaseSettings], Address]
) -> None:
    set_parts(monkeypatch)
    settings = read_settings()

    assert address_of(settings) == database_address(settings)


@pytest.mark.parametrize("address_of", [database_address, reading_address])
def test_options_are_refused_where_a_pooler_would_drop_them(
    address_of: Callable[[DatabaseSettings], Address],
) -> None:
    settings = settings_of(f"{URL}?options=-c%20geqo%3Doff", pooler="transaction")

    with pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL has options") as caught:
        address_of(settings)

    assert "ALTER ROLE" in str(caught.value)


def test_the_direct_url_of_migrations_may_have_options_beside_a_pooler() -> None:
    settings = settings_of(
        URL, migration_url=SecretStr(f"{URL}?options=-c%20geqo%3Doff"), pooler="transaction"
    )

    assert migration_address(settings).server_settings == {"options": "-c geqo=off"}


@pytest.mark.parametrize(
    "settings",
    [
        partial(settings_of, URL_WITH_PASSWORD),
        partial(settings_of, f"{URL}?sslpassword={PASSWORD}"),
        partial(settings_of, f"postgresql:///agents?host=db.example&password={PASSWORD}"),
        partial(settings_of, URL, password=PASSWORD),
        partial(settings_of, URL, password=partial(give_token, PASSWORD)),
        partial(DatabaseSettings, host="db.example", password=PASSWORD),
    ],
)
def test_neither_settings_nor_address_show_a_secret(
    settings: Callable[[], DatabaseSettings],
) -> None:
    given = settings()
    address = database_address(given)

    assert PASSWORD not in f"{given!r} {given} {address!r} {address} {address.url!r}"
    assert PASSWORD in str(address.arguments)
