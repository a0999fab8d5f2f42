"""A server that is not who it says it is gets no password: of no engine and no command."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from support.addresses import settings_of, shown
from support.certificates import make_certificates, needs_tls
from support.private_server import private_server
from support.shell import alembic
from typer.testing import CliRunner

from agentobs import Database, migrations
from agentobs.cli import app
from agentobs.errors import ConnectionFailedError
from agentobs.maintenance import maintain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from support.certificates import Certificates, Pair
    from support.private_server import PrivateServer

pytestmark = [pytest.mark.usefixtures("bare_environment"), needs_tls]
pytest_plugins = ["support.address_fixtures"]

ELSEWHERE = SecretStr("postgresql://agent@db.invalid/agents")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PrivateServer]:
    with private_server(tls=certificates) as server:
        yield server


@contextmanager
def shows(server: PrivateServer, pair: Pair, usual: Pair) -> Iterator[None]:
    server.use_certificate(pair)
    try:
        yield
    finally:
        server.use_certificate(usual)


@pytest.fixture(scope="module", params=["wrong_host", "expired", "stranger_ca"])
def refused(
    request: pytest.FixtureRequest, server: PrivateServer, certificates: Certificates
) -> Iterator[str]:
    """Yield the URL of a server whose certificate is not to be trusted, and why not."""
    name: str = request.param
    ca = certificates.stranger_ca if name == "stranger_ca" else certificates.ca
    pair = certificates.server if name == "stranger_ca" else getattr(certificates, name)
    with shows(server, pair, certificates.server):
        yield server.url(sslmode="verify-full", sslrootcert=ca)


async def migrated(url: str) -> None:
    await migrations.upgrade(settings=settings_of(ELSEWHERE.get_secret_value(), migration_url=url))


async def looked_at(url: str) -> None:
    await migrations.current(settings=settings_of(ELSEWHERE.get_secret_value(), migration_url=url))


async def maintained(url: str) -> None:
    await maintain(settings=settings_of(ELSEWHERE.get_secret_value(), migration_url=url))


async def served(url: str) -> None:
    async with Database(settings_of(url)):
        pass


async def read(url: str) -> None:
    few = settings_of(ELSEWHERE.get_secret_value(), read_url=url, pool_min_size=0)
    async with Database(few) as db, db.read_session() as session:
        await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("connect", [migrated, looked_at, maintained, served, read])
async def test_a_server_that_is_not_who_it_says_is_refused(
    server: PrivateServer, refused: str, connect: Callable[[str], Awaitable[None]]
) -> None:
    with pytest.raises(ConnectionFailedError, match="certificate verify failed") as caught:
        await connect(refused)

    assert server.password not in shown(caught.value)


@pytest.mark.parametrize("command", ["status", "maintain", "db upgrade", "db check"])
def test_a_server_that_is_not_who_it_says_is_refused_by_the_commands(
    server: PrivateServer, refused: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", refused)

    done = CliRunner().invoke(app, command.split())

    assert isinstance(done.exception, ConnectionFailedError)
    assert str(done.exception).endswith(
        "is sslrootcert the server's CA, does its certificate name this host, is it valid?"
    )
    assert server.password not in shown(done.exception) + done.output


def test_a_server_that_is_not_who_it_says_is_refused_by_alembic_in_one_line(
    server: PrivateServer, certificates: Certificates
) -> None:
    url = server.url(sslmode="verify-full", sslrootcert=certificates.stranger_ca)

    done = alembic("current", AGENTOBS_MIGRATION_URL=url)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "certificate verify failed" in done.stderr
    assert server.password not in done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_that_is_who_it_says_is_migrated(
    server: PrivateServer, certificates: Certificates, mode: str
) -> None:
    await looked_at(server.url(sslmode=mode, sslrootcert=certificates.ca))


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
async def test_modes_that_do_not_ask_for_the_host_refuse_what_is_expired(
    server: PrivateServer, certificates: Certificates, mode: str
) -> None:
    url = server.url(sslmode=mode, sslrootcert=certificates.ca)
    with shows(server, certificates.wrong_host, certificates.server):
        await looked_at(url)
    with (
        shows(server, certificates.expired, certificates.server),
        pytest.raises(ConnectionFailedError, match="certificate verify failed"),
    ):
        await looked_at(url)


async def test_no_other_host_of_several_is_taken_where_a_certificate_is_refused(
    server: PrivateServer, certificates: Certificates
) -> None:
    hosts = f"127.0.0.1:{server.port},localhost:{server.port}"
    login = f"{server.user}:{quote(server.password)}"
    ca = f"sslmode=verify-full&sslrootcert={certificates.stranger_ca}"

    with pytest.raises(ConnectionFailedError, match="certificate verify failed"):
        await served(f"postgresql://{login}@{hosts}/{server.database}?{ca}")
