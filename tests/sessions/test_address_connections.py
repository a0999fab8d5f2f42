from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from support.addresses import ask, settings_of, shown
from support.private_server import private_server

from agentobs.errors import ConnectionFailedError
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.private_server import PrivateServer

pytestmark = pytest.mark.usefixtures("bare_environment")
pytest_plugins = ["support.address_fixtures"]

PORT = "SELECT inet_server_port()"
IS_STANDBY = "SELECT pg_is_in_recovery()"
IS_SOCKET = "SELECT inet_server_addr() IS NULL"
APPLICATION_NAME = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as server:
        yield server


@pytest.fixture(scope="module")
def standby(server: PrivateServer) -> Iterator[PrivateServer]:
    with server.standby() as standby:
        yield standby


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Hold a port where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def passfile(server: PrivateServer, tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.touch(mode=0o600)
    path.write_text(f"{server.host}:{server.port}:*:{server.user}:{server.password}\n")
    return path


def url_of(server: PrivateServer, hosts: str, query: str = "") -> str:
    login = f"{server.user}:{quote(server.password)}"
    return f"postgresql://{login}@{hosts}/{server.database}{query}"


def place_of(server: PrivateServer) -> str:
    return f"{server.host}:{server.port}"


def folder_of(server: PrivateServer) -> str:
    return quote(str(server.socket_directory), safe="")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_a_url_of_each_scheme_connects(server: PrivateServer, scheme: str) -> None:
    url = server.url().replace("postgresql", scheme, 1)

    assert await ask(settings_of(url), PORT) == server.port


async def test_a_host_that_is_down_is_passed_by(server: PrivateServer, dead_port: int) -> None:
    url = url_of(server, f"127.0.0.1:{dead_port},{place_of(server)}")

    assert await ask(settings_of(url), PORT) == server.port


async def test_where_every_host_is_down_the_message_names_them_all(
    server: PrivateServer, dead_port: int
) -> None:
    url = url_of(server, f"127.0.0.1:{dead_port},localhost:{dead_port}")

    with pytest.raises(ConnectionFailedError) as caught:
        await ask(settings_of(url), PORT)

    assert f"127.0.0.1:{dead_port},localhost:{dead_port}/" in str(caught.value)
    assert "is the server up, and are host and port right?" in str(caught.value)
    assert server.password not in shown(caught.value)


@pytest.mark.parametrize("is_primary_first", [True, False])
@pytest.mark.parametrize(
    ("wanted", "is_standby"),
    [
        ("primary", False),
        ("read-write", False),
        ("standby", True),
        ("read-only", True),
        ("prefer-standby", True),
    ],
)
async def test_the_server_that_is_wanted_is_chosen_among_several(
    server: PrivateServer,
    standby: PrivateServer,
    wanted: str,
    is_standby: bool,
    is_primary_first: bool,
) -> None:
    places = [place_of(server), place_of(standby)]
    hosts = ",".join(places if is_primary_first else reversed(places))

    by_url = settings_of(url_of(server, hosts, f"?target_session_attrs={wanted}"))
    by_part = settings_of(url_of(server, hosts), target_session_attrs=wanted)

    assert await ask(by_url, IS_STANDBY) is is_standby
    assert await ask(by_part, IS_STANDBY) is is_standby


async def test_where_no_server_is_as_wanted_the_message_says_so(server: PrivateServer) -> None:
    with pytest.raises(ConnectionFailedError, match="None of the hosts match") as caught:
        await ask(settings_of(server.url(target_session_attrs="standby")), PORT)

    assert "standby" in str(caught.value)


async def test_options_of_a_url_reach_the_server(server: PrivateServer) -> None:
    settings = settings_of(f"{server.url()}?options=-c%20geqo%3Doff")

    assert await ask(settings, "SHOW geqo") == "off"


@pytest.mark.parametrize(
    ("in_url", "set_to", "seen"),
    [
        (None, None, "agentobs"),
        ("router", None, "router"),
        (None, "worker", "worker"),
        ("router", "worker", "worker"),
    ],
)
async def test_the_name_of_the_application_is_seen_on_the_server(
    server: PrivateServer,
    monkeypatch: pytest.MonkeyPatch,
    in_url: str | None,
    set_to: str | None,
    seen: str,
) -> None:
    query = "" if in_url is None else f"?application_name={in_url}"
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", f"{server.url()}{query}")
    monkeypatch.setenv("AGENTOBS_APPLICATION_NAME", set_to or "")

    assert await ask(read_settings(), APPLICATION_NAME) == seen


async def test_the_parts_of_the_environment_connect(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", server.host)
    monkeypatch.setenv("AGENTOBS_PORT", str(server.port))
    monkeypatch.setenv("AGENTOBS_USER", server.user)
    monkeypatch.setenv("AGENTOBS_PASSWORD", server.password)
    monkeypatch.setenv("AGENTOBS_DATABASE", server.database)

    assert await ask(read_settings(), PORT) == server.port


async def test_a_passfile_gives_the_password(server: PrivateServer, passfile: Path) -> None:
    url = server.url(with_password=False, passfile=passfile)

    assert await ask(settings_of(url), PORT) == server.port


async def test_a_service_names_the_place(server: PrivateServer, tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[agents]\nhost={server.host}\nport={server.port}\nuser={server.user}\n"
        f"password={server.password}\ndbname={server.database}\n"
    )
    url = f"postgresql://?service=agents&servicefile={quote(str(services), safe='')}"

    assert await ask(settings_of(url), PORT) == server.port


async def test_without_any_password_the_message_says_that_one_is_wanted(
    server: PrivateServer,
) -> None:
    with pytest.raises(ConnectionFailedError, match="password") as caught:
        await ask(settings_of(server.url(with_password=False)), PORT)

    assert f"can't connect to postgresql://{server.user}@{place_of(server)}/" in str(caught.value)
    assert "are user and password right?" in str(caught.value)


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://{user}@/{database}?host={folder}&port={port}",
        "postgresql://{user}@{folder}/{database}?port={port}",
        "postgresql://{user}@{folder}:{port}/{database}",
        "postgresql:///?host={folder}&port={port}&user={user}&dbname={database}",
    ],
)
async def test_a_socket_is_reached_by_its_folder(server: PrivateServer, form: str) -> None:
    url = form.format(
        user=server.user, database=server.database, folder=folder_of(server), port=server.port
    )

    assert await ask(settings_of(url), IS_SOCKET)


async def test_a_socket_is_reached_by_parts(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_HOST", str(server.socket_directory))
    monkeypatch.setenv("AGENTOBS_PORT", str(server.port))
    monkeypatch.setenv("AGENTOBS_USER", server.user)
    monkeypatch.setenv("AGENTOBS_DATABASE", server.database)

    assert await ask(read_settings(), IS_SOCKET)


async def test_a_socket_is_passed_by_for_a_server(server: PrivateServer, tmp_path: Path) -> None:
    hosts = f"{quote(str(tmp_path), safe='')},{place_of(server)}"

    assert await ask(settings_of(url_of(server, hosts)), PORT) == server.port


@pytest.mark.parametrize("netloc", ["?port={port}", ":{port}"])
async def test_a_port_without_a_host_is_that_of_the_usual_host(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch, netloc: str
) -> None:
    monkeypatch.setenv("PGHOST", str(server.socket_directory))
    monkeypatch.setenv("PGUSER", server.user)
    url = f"postgresql://{netloc.format(port=server.port)}"

    assert await ask(settings_of(url), IS_SOCKET)
