from __future__ import annotations

import traceback

import pytest
from pydantic import SecretStr

from agentobs.errors import ConfigurationError
from agentobs.sessions import database_url

PASSWORD = "swordfish"  # noqa: S105 (no one's password)
ADDRESS = f"agent:{PASSWORD}@db.example:5432/agents"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_a_url_of_postgresql_becomes_one_for_asyncpg(scheme: str) -> None:
    url = database_url(SecretStr(f"{scheme}://{ADDRESS}"))

    assert url.render_as_string(hide_password=False) == f"postgresql+asyncpg://{ADDRESS}"


@pytest.mark.parametrize(
    "scheme", ["mysql", "sqlite", "postgresql+psycopg", "postgresql+psycopg2", "https"]
)
def test_another_scheme_is_refused_by_its_name(scheme: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_url(SecretStr(f"{scheme}://{ADDRESS}"))

    message = str(caught.value)
    assert message.startswith(f"AGENTOBS_DATABASE_URL begins with {scheme}:")
    assert "postgresql://" in message
    assert PASSWORD not in message


@pytest.mark.parametrize("setting", ["AGENTOBS_DATABASE_URL", "AGENTOBS_MIGRATION_URL"])
def test_a_missing_url_names_the_variable_to_set(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} is not set") as caught:
        database_url(None, setting=setting)

    assert caught.value.setting == setting


@pytest.mark.parametrize(
    "malformed",
    [
        f"agent:{PASSWORD}@db.example/agents",
        f"postgresql:/agent:{PASSWORD}@db.example/agents",
        f"postgresql://agent:{PASSWORD}@db.example:port/agents",
        f"postgresql://agent:{PASSWORD}@[::1/agents",
        f"postgresql://agent:{PASSWORD}@db.example:54x32/agents",
        PASSWORD,
        "",
    ],
)
def test_a_malformed_url_is_refused_without_quoting_it(malformed: str) -> None:
    with pytest.raises(ConfigurationError, match="AGENTOBS_DATABASE_URL is no URL") as caught:
        database_url(SecretStr(malformed))

    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert caught.value.setting == "AGENTOBS_DATABASE_URL"


def test_special_characters_of_a_password_survive() -> None:
    url = database_url(SecretStr("postgresql://agent:p%40ss%2Fw%3A%25@db.example/agents"))

    assert url.password == "p@ss/w:%"  # noqa: S105 (no one's password)
    assert url.host == "db.example"


@pytest.mark.parametrize("option", ["sslmode", "ssl"])
def test_the_sslmode_of_libpq_becomes_the_ssl_of_asyncpg(option: str) -> None:
    url = database_url(SecretStr(f"postgresql://{ADDRESS}?{option}=verify-full"))

    assert url.query == {"ssl": "verify-full"}


@pytest.mark.parametrize(
    "options", ["sslmode=disable&ssl=verify-full", "sslmode=require&sslmode=disable"]
)
def test_two_sslmodes_are_refused_for_the_weaker_one_might_win(options: str) -> None:
    with pytest.raises(ConfigurationError, match="more than one sslmode"):
        database_url(SecretStr(f"postgresql://{ADDRESS}?{options}"))


def test_a_socket_is_named_by_host_and_port() -> None:
    url = database_url(SecretStr("postgresql:///agents?host=/run/postgresql&port=5433"))

    assert url.query == {"host": "/run/postgresql", "port": "5433"}


def test_an_unknown_option_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_url(SecretStr(f"postgresql://{ADDRESS}?sslmode=require&target_session_attrs=any"))

    assert str(caught.value) == (
        "AGENTOBS_DATABASE_URL has the option target_session_attrs: "
        "the options are host, port, ssl, sslmode"
    )


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_there_is_not_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"names the port {port}"):
        database_url(SecretStr(f"postgresql://user:hunter2@host:{port}/name"))
