from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from support.addresses import ask, settings_of, shown
from support.certificates import CERTIFIED_USER, make_certificates, needs_tls
from support.private_server import private_server

from agentobs import create_engine
from agentobs.errors import AgentobsError, ConfigurationError, ConnectionFailedError
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates, Pair
    from support.private_server import PrivateServer

    from agentobs import DatabaseSettings
    from agentobs.errors import DatabaseError

pytestmark = [pytest.mark.usefixtures("bare_environment"), needs_tls]
pytest_plugins = ["support.address_fixtures"]

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
TLS_VERSION = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
WHO_AM_I = "SELECT current_user"
ADVICE = "is sslrootcert the server's CA, does its certificate name this host, is it valid?"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PrivateServer]:
    with private_server(tls=certificates) as server:
        yield server


@pytest.fixture(scope="module")
def plain_server() -> Iterator[PrivateServer]:
    with private_server() as server:
        yield server


@contextmanager
def shows(server: PrivateServer, pair: Pair, usual: Pair) -> Iterator[None]:
    server.use_certificate(pair)
    try:
        yield
    finally:
        server.use_certificate(usual)


def verifying(server: PrivateServer, ca: Path | str, **others: Any) -> DatabaseSettings:
    return settings_of(server.url(**{"sslmode": "verify-full", "sslrootcert": ca, **others}))


async def failure_of(settings: DatabaseSettings, server: PrivateServer) -> DatabaseError:
    with pytest.raises(ConnectionFailedError) as caught:
        await ask(settings, IS_ENCRYPTED)
    assert server.password not in shown(caught.value)
    return caught.value


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_a_server_with_tls_is_spoken_to_in_secret(server: PrivateServer, mode: str) -> None:
    assert await ask(settings_of(server.url(sslmode=mode)), IS_ENCRYPTED)


async def test_without_a_word_about_it_tls_is_preferred(server: PrivateServer) -> None:
    assert await ask(settings_of(server.url()), IS_ENCRYPTED)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_the_ca_is_trusted(
    server: PrivateServer, certificates: Certificates, mode: str, host: str
) -> None:
    url = server.url(host=host, sslmode=mode, sslrootcert=certificates.ca)

    assert await ask(settings_of(url), IS_ENCRYPTED)


async def test_a_server_that_wants_tls_refuses_a_client_without(server: PrivateServer) -> None:
    error = await failure_of(settings_of(server.url(sslmode="disable")), server)

    assert error.sqlstate == "28000"
    assert "pg_hba.conf" in str(error)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_another_ca_is_refused(
    server: PrivateServer, certificates: Certificates, mode: str
) -> None:
    settings = verifying(server, certificates.stranger_ca, sslmode=mode)

    error = await failure_of(settings, server)

    assert str(error).endswith(ADVICE)
    assert f"can't connect to postgresql://postgres@127.0.0.1:{server.port}/" in str(error)


@pytest.mark.parametrize("name", ["wrong_host", "expired"])
async def test_a_bad_certificate_is_refused(
    server: PrivateServer, certificates: Certificates, name: str
) -> None:
    with shows(server, getattr(certificates, name), certificates.server):
        error = await failure_of(verifying(server, certificates.ca), server)

    assert "certificate verify failed" in str(error)
    assert str(error).endswith(ADVICE)


async def test_verify_ca_does_not_ask_for_the_host(
    server: PrivateServer, certificates: Certificates
) -> None:
    with shows(server, certificates.wrong_host, certificates.server):
        assert await ask(verifying(server, certificates.ca, sslmode="verify-ca"), IS_ENCRYPTED)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    plain_server: PrivateServer, certificates: Certificates, mode: str
) -> None:
    settings = verifying(plain_server, certificates.ca, sslmode=mode)

    error = await failure_of(settings, plain_server)

    assert "rejected SSL upgrade" in str(error)
    assert "the server takes no TLS: set it up there, or lower sslmode" in str(error)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
async def test_a_server_without_tls_is_taken_where_tls_is_not_required(
    plain_server: PrivateServer, mode: str
) -> None:
    assert not await ask(settings_of(plain_server.url(sslmode=mode)), IS_ENCRYPTED)


async def test_a_client_certificate_logs_in_without_a_password(
    server: PrivateServer, certificates: Certificates
) -> None:
    url = server.url(
        user=CERTIFIED_USER,
        with_password=False,
        sslmode="verify-full",
        sslrootcert=certificates.ca,
        sslcert=certificates.client.certificate,
        sslkey=certificates.client.key,
    )

    assert await ask(settings_of(url), WHO_AM_I) == CERTIFIED_USER


async def test_without_its_certificate_a_client_is_refused(
    server: PrivateServer, certificates: Certificates
) -> None:
    url = server.url(
        user=CERTIFIED_USER,
        with_password=False,
        sslmode="verify-full",
        sslrootcert=certificates.ca,
    )

    error = await failure_of(settings_of(url), server)

    assert error.sqlstate == "28000"
    assert "connection requires a valid client certificate" in str(error)


async def test_the_parts_of_the_environment_do_what_the_url_does(
    server: PrivateServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", server.host)
    monkeypatch.setenv("AGENTOBS_PORT", str(server.port))
    monkeypatch.setenv("AGENTOBS_USER", CERTIFIED_USER)
    monkeypatch.setenv("AGENTOBS_DATABASE", server.database)
    monkeypatch.setenv("AGENTOBS_SSLMODE", "verify-full")
    monkeypatch.setenv("AGENTOBS_SSLROOTCERT", str(certificates.ca))
    monkeypatch.setenv("AGENTOBS_SSLCERT", str(certificates.client.certificate))
    monkeypatch.setenv("AGENTOBS_SSLKEY", str(certificates.client.key))

    assert await ask(read_settings(), WHO_AM_I) == CERTIFIED_USER


async def test_the_part_for_the_ca_refuses_what_the_url_refuses(
    server: PrivateServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", server.url())
    monkeypatch.setenv("AGENTOBS_SSLMODE", "verify-full")
    monkeypatch.setenv("AGENTOBS_SSLROOTCERT", str(certificates.stranger_ca))

    error = await failure_of(read_settings(), server)

    assert str(error).endswith(ADVICE)


async def test_the_cas_of_the_system_are_trusted_on_demand(
    server: PrivateServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))

    assert await ask(settings_of(server.url(sslrootcert="system")), IS_ENCRYPTED)


async def test_a_certificate_of_none_of_the_cas_of_the_system_is_refused(
    server: PrivateServer,
) -> None:
    error = await failure_of(settings_of(server.url(sslrootcert="system")), server)

    assert str(error).endswith(ADVICE)


@pytest.mark.parametrize("ca", ["a file", "system"])
async def test_a_highest_version_of_tls_is_kept_to(
    server: PrivateServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, ca: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    root = certificates.ca if ca == "a file" else ca
    settings = verifying(server, root, ssl_max_protocol_version="TLSv1.2")

    assert await ask(settings, TLS_VERSION) == "TLSv1.2"


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey"])
def test_a_missing_file_is_refused_before_any_connection(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.pem"
    query = urlencode({"sslmode": "verify-full", name: missing})
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", f"postgresql://db.invalid/agents?{query}")

    with pytest.raises(ConfigurationError, match=f"the file of {name} can't be read") as caught:
        create_engine()

    assert str(missing) in str(caught.value)


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey"])
def test_a_missing_file_of_the_parts_is_refused_before_any_connection(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", "db.invalid")
    monkeypatch.setenv(f"AGENTOBS_{name.upper()}", str(tmp_path / "missing.pem"))

    with pytest.raises(ConfigurationError, match=f"the file of {name} can't be read"):
        create_engine()


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert"])
@pytest.mark.parametrize("root", ["a file", "system"])
async def test_a_file_that_holds_no_certificate_is_refused_by_its_option(
    server: PrivateServer, certificates: Certificates, tmp_path: Path, root: str, name: str
) -> None:
    no_certificate = tmp_path / "readme.pem"
    no_certificate.write_text("no certificate")
    ca = certificates.ca if root == "a file" else root
    settings = verifying(server, ca, **{name: no_certificate})

    with pytest.raises(AgentobsError, match=name) as caught:
        await ask(settings, IS_ENCRYPTED)

    assert "is the server up" not in str(caught.value)


async def test_without_any_ca_to_verify_with_the_message_names_the_option(
    server: PrivateServer,
) -> None:
    with pytest.raises(AgentobsError, match="sslrootcert") as caught:
        await ask(settings_of(server.url(sslmode="verify-full")), IS_ENCRYPTED)

    assert "is the server up" not in str(caught.value)
