from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme
from support.addresses import shown

from agentobs.errors import ConfigurationError
from agentobs.sessions.options import driver_arguments
from agentobs.sessions.urls import parse_url

if TYPE_CHECKING:
    from pathlib import Path

SETTING = "AGENTOBS_DATABASE_URL"
SECRET = "swordfish"  # noqa: S105 (no one's password)


def arguments_of(url: str) -> dict[str, Any]:
    return driver_arguments(parse_url(url, SETTING).options, SETTING)


def refusal_of(query: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        arguments_of(f"postgresql://db.example/agents?{query}")
    assert caught.value.setting == SETTING
    assert SECRET not in shown(caught.value)
    return str(caught.value)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "root ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_without_options_the_driver_decides() -> None:
    assert arguments_of("postgresql://db.example/agents") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_session_attrs", "read-write"),
        ("passfile", "/run/secrets/pgpass"),
        ("service", "agents"),
        ("servicefile", "/etc/pg_service.conf"),
        ("krbsrvname", "postgres"),
        ("gsslib", "gssapi"),
    ],
)
def test_an_option_of_libpq_becomes_an_argument_of_the_driver(name: str, value: str) -> None:
    arguments = arguments_of(f"postgresql://db.example/agents?{name}={quote(value, safe='')}")

    assert arguments[name] == value


@pytest.mark.parametrize(("text", "timeout"), [("10", 10.0), ("0", None), ("-1", None)])
def test_the_connect_timeout_is_the_drivers_timeout(text: str, timeout: float | None) -> None:
    arguments = arguments_of(f"postgresql://db.example/agents?connect_timeout={text}")

    assert arguments == {"timeout": timeout}


@pytest.mark.parametrize("text", ["soon", "1.5", "٣"])
def test_a_connect_timeout_that_is_no_number_is_refused(text: str) -> None:
    assert "connect_timeout that is no number of seconds" in refusal_of(f"connect_timeout={text}")


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_the_sslmode_reaches_the_driver(name: str, mode: str) -> None:
    arguments = arguments_of(f"postgresql://db.example/agents?{name}={mode}")

    assert arguments == {"dsn": f"postgresql://?sslmode={mode}"}


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_the_file_of_the_ca_reaches_the_driver(mode: str, ca_file: Path) -> None:
    path = quote(str(ca_file), safe="")

    arguments = arguments_of(f"postgresql://db.example/agents?sslmode={mode}&sslrootcert={path}")

    # The driver takes a + for a space, unlike libpq.
    assert parse_url(arguments["dsn"].replace("+", "%20"), SETTING).options == {
        "sslmode": mode,
        "sslrootcert": str(ca_file),
    }


def test_ssl_true_asks_for_tls_as_it_does_in_libpq() -> None:
    arguments = arguments_of("postgresql://db.example/agents?ssl=true")

    assert arguments == arguments_of("postgresql://db.example/agents?sslmode=require")


def test_the_cas_of_the_system_are_named_as_in_libpq() -> None:
    context = arguments_of("postgresql://db.example/agents?sslrootcert=system")["ssl"]

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_the_cas_of_the_system_and_a_weaker_sslmode_are_refused(mode: str) -> None:
    message = refusal_of(f"sslrootcert=system&sslmode={mode}")

    assert "sslrootcert=system wants sslmode=verify-full" in message


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_file_that_is_not_there_is_refused_with_its_option(name: str) -> None:
    message = refusal_of(f"sslmode=verify-full&{name}=/nowhere/file.pem")

    assert f"the file of {name} can't be read" in message
    assert "/nowhere/file.pem" in message


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_folder_in_place_of_a_file_is_refused_with_its_option(name: str, tmp_path: Path) -> None:
    assert f"the file of {name} can't be read" in refusal_of(f"{name}={quote(str(tmp_path))}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pgbouncer", "true"),
        ("schema", "obs"),
        ("hostaddr", "10.0.0.7"),
        ("unix_sock", "/cloudsql/project:region:instance/.s.PGSQL.5432"),
        ("secret_option", SECRET),
    ],
)
def test_an_unknown_option_is_named_with_those_that_are_known(name: str, value: str) -> None:
    message = refusal_of(f"sslmode=require&{name}={value}")

    assert message.startswith(
        f"{SETTING} has the option {name}, which the driver does not have: the options are "
    )
    assert value not in message
    assert "application_name, connect_timeout, " in message
    assert "target_session_attrs" in message


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("sslmode", "disable, allow, prefer, require, verify-ca, verify-full"),
        (
            "target_session_attrs",
            "any, primary, standby, prefer-standby, read-write, read-only",
        ),
        ("ssl_min_protocol_version", "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
        ("ssl_max_protocol_version", "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
        ("sslnegotiation", "postgres, direct"),
        ("channel_binding", "disable, prefer"),
        ("client_encoding", "auto, utf8"),
        ("gssencmode", "disable, prefer"),
        ("load_balance_hosts", "disable"),
    ],
)
def test_another_value_than_the_driver_knows_is_refused_with_the_choices(
    name: str, choices: str
) -> None:
    message = refusal_of(f"{name}={SECRET}")

    assert f"another value of {name} than" in message
    assert f"it takes {choices}" in message


def test_the_channel_binding_that_providers_put_into_urls_is_refused_with_what_to_write() -> None:
    message = refusal_of("channel_binding=require")

    assert "leave it out" in message
    assert "sslmode=verify-full&sslrootcert=system" in message


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "client_encoding=utf8",
        "client_encoding=UTF-8",
        "gssencmode=disable",
        "load_balance_hosts=disable",
        "requiressl=0",
        "sslcompression=0",
        "sslsni=1",
    ],
)
def test_an_option_that_asks_for_what_the_driver_does_anyway_is_taken(
    query: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert arguments_of(f"postgresql://db.example/agents?{query}") == {}
    assert not caplog.records


@pytest.mark.parametrize(
    "name",
    [
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    ],
)
def test_an_option_of_the_socket_is_ignored_with_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = arguments_of(f"postgresql://db.example/agents?{name}=10")

    assert arguments == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "agentobs.sessions"
    assert record.getMessage() == f"{SETTING}: the driver can't set {name}, which is ignored"


@pytest.mark.parametrize(
    "url",
    [
        # Amazon RDS, Heroku, Render, DigitalOcean
        "postgresql://u:p@agents.abc123.eu-central-1.rds.amazonaws.com:5432/agents?sslmode=require",
        "postgres://u:p@ec2-1-2-3-4.eu-west-1.compute.amazonaws.com:5432/d1abc",
        "postgresql://u:p@dpg-abc-a.frankfurt-postgres.render.com/agents?sslmode=prefer",
        "postgresql://doadmin:p@db-do-user-1-0.b.db.ondigitalocean.com:25060/d?sslmode=require",
        # Neon: the endpoint, where the driver knows no SNI
        "postgresql://u:p@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require",
        "postgres://u:p@ep-1.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-1",
        "postgres://u:p@ep-1.neon.tech/neondb?sslmode=verify-full&sslrootcert=system",
        "postgres://u:p@ep-1.neon.tech/neondb?sslmode=require&connect_timeout=15",
        # Supabase: the pooler in either mode
        "postgresql://postgres.abcdef:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
        "postgresql://postgres:p@db.abcdef.supabase.co:5432/postgres?sslmode=require",
        # Azure: of old, the user held the server's name
        "postgresql://u%40agents:p@agents.postgres.database.azure.com:5432/d?sslmode=require",
        # Google Cloud SQL: the proxy's socket
        "postgresql://u:p@/agents?host=/cloudsql/project:region:instance",
        "postgresql+asyncpg://u:p@/agents?host=/cloudsql/project:region:instance/.s.PGSQL.5432",
        # CockroachDB, with several nodes
        "postgresql://u:p@c.cockroachlabs.cloud:26257/d?options=--cluster%3Dagents-1&sslmode=allow",
        "postgresql://u@db1:5432,db2:5432,db3:5432/d?target_session_attrs=primary",
    ],
)
def test_the_urls_that_providers_hand_out_are_taken(url: str) -> None:
    assert parse_url(url, SETTING).hosts
    arguments_of(url)
