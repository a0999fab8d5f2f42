from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from support.addresses import ask, engine_of, settings_of, shown
from support.private_server import private_server

from agentobs.errors import ConnectionFailedError, DatabaseError
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from support.private_server import PrivateServer

    from agentobs import DatabaseSettings
    from agentobs.settings import PasswordSource

pytestmark = pytest.mark.usefixtures("bare_environment")
pytest_plugins = ["support.address_fixtures"]

ROLE = "rotating"
SECRET = "canary-of-a-token"  # noqa: S105 (no one's password)
WHO_AM_I = "SELECT current_user"


class Vault:
    """Gives the token of now, as a callable, and counts how often it was asked."""

    def __init__(self, server: PrivateServer) -> None:
        self.server = server
        self.asked = 0
        self.token = ""
        self.rotate("first token")

    def rotate(self, token: str) -> None:
        self.server.sql(f"ALTER ROLE {ROLE} PASSWORD '{token}'")
        self.token = token

    def give(self) -> str:
        self.asked += 1
        return self.token

    async def give_later(self) -> str:
        return await asyncio.to_thread(self.give)

    async def __call__(self) -> str:
        return await self.give_later()


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as server:
        server.sql(f"CREATE ROLE {ROLE} LOGIN")
        yield server


@pytest.fixture
def vault(server: PrivateServer) -> Vault:
    return Vault(server)


@pytest.fixture(params=["a function", "a coroutine function", "an object"])
def source(request: pytest.FixtureRequest, vault: Vault) -> PasswordSource:
    forms: dict[str, PasswordSource] = {
        "a function": vault.give,
        "a coroutine function": vault.give_later,
        "an object": vault,
    }
    return forms[request.param]


def login_of(server: PrivateServer, password: Any, **others: Any) -> DatabaseSettings:
    url = server.url(user=ROLE, with_password=False)
    return settings_of(url, password=password, **others)


async def open_several(
    engine: AsyncEngine, stack: AsyncExitStack, count: int
) -> list[AsyncConnection]:
    return [await stack.enter_async_context(engine.connect()) for _ in range(count)]


async def failure_of(settings: DatabaseSettings) -> DatabaseError:
    with pytest.raises(ConnectionFailedError) as caught:
        await ask(settings, WHO_AM_I)
    return caught.value


async def test_a_password_of_the_settings_logs_in(server: PrivateServer, vault: Vault) -> None:
    assert await ask(login_of(server, vault.token), WHO_AM_I) == ROLE


async def test_a_password_of_the_environment_logs_in(
    server: PrivateServer, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(user=ROLE, with_password=False)
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url)
    monkeypatch.setenv("AGENTOBS_PASSWORD", vault.token)

    assert await ask(read_settings(), WHO_AM_I) == ROLE


async def test_special_characters_of_a_password_need_no_encoding_in_the_settings(
    server: PrivateServer, vault: Vault
) -> None:
    vault.rotate("p@ss/w%41rd:?#[]")

    assert await ask(login_of(server, vault.token), WHO_AM_I) == ROLE


async def test_a_callable_gives_the_password(server: PrivateServer, source: PasswordSource) -> None:
    assert await ask(login_of(server, source), WHO_AM_I) == ROLE


async def test_a_callable_may_give_a_secret_that_hides_itself(
    server: PrivateServer, vault: Vault
) -> None:
    settings = login_of(server, lambda: SecretStr(vault.token))

    assert await ask(settings, WHO_AM_I) == ROLE


async def test_a_callable_is_asked_once_for_each_physical_connection(
    server: PrivateServer, vault: Vault, source: PasswordSource
) -> None:
    async with engine_of(login_of(server, source)) as engine, AsyncExitStack() as stack:
        asked_before = vault.asked

        await open_several(engine, stack, 3)

    assert (asked_before, vault.asked) == (0, 3)


async def test_a_callable_is_not_asked_for_a_connection_that_waits_in_the_pool(
    server: PrivateServer, vault: Vault
) -> None:
    async with engine_of(login_of(server, vault.give)) as engine:
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(text(WHO_AM_I)) == ROLE

    assert vault.asked == 1


async def test_a_callable_is_asked_again_where_a_connection_was_lost(
    server: PrivateServer, vault: Vault
) -> None:
    async with engine_of(login_of(server, vault.give)) as engine:
        async with engine.connect() as connection:
            await connection.invalidate()
        async with engine.connect() as connection:
            assert await connection.scalar(text(WHO_AM_I)) == ROLE

    assert vault.asked == 2


async def test_after_a_rotation_new_connections_log_in_and_open_ones_go_on(
    server: PrivateServer, vault: Vault, source: PasswordSource
) -> None:
    async with engine_of(login_of(server, source)) as engine, AsyncExitStack() as stack:
        (before,) = await open_several(engine, stack, 1)

        vault.rotate("second token")
        (after,) = await open_several(engine, stack, 1)

        assert await after.scalar(text(WHO_AM_I)) == ROLE
        assert await before.scalar(text(WHO_AM_I)) == ROLE


async def test_a_token_that_is_no_longer_good_fails_until_the_callable_gives_a_new_one(
    server: PrivateServer, vault: Vault
) -> None:
    async with engine_of(login_of(server, vault.give)) as engine:
        vault.rotate("second token")
        vault.token = "first token"  # noqa: S105 (no one's password)
        with pytest.raises(ConnectionFailedError):
            await engine.connect()

        vault.token = "second token"  # noqa: S105 (no one's password)
        async with engine.connect() as connection:
            assert await connection.scalar(text(WHO_AM_I)) == ROLE


async def test_a_callable_that_raises_is_told_by_the_type_of_its_error(
    server: PrivateServer,
) -> None:
    cause = LookupError(SECRET)

    def fail() -> str:
        raise cause

    error = await failure_of(login_of(server, fail))

    assert str(error) == "the callable that gives the password raised LookupError"
    assert error.__cause__ is cause


async def test_a_coroutine_function_that_raises_is_told_by_the_type_of_its_error(
    server: PrivateServer,
) -> None:
    cause = PermissionError(SECRET)

    async def fail() -> str:
        raise cause

    error = await failure_of(login_of(server, fail))

    assert str(error) == "the callable that gives the password raised PermissionError"
    assert error.__cause__ is cause


@pytest.mark.parametrize(
    ("answer", "type_name"),
    [(SECRET.encode(), "bytes"), (None, "NoneType"), (5432, "int"), ([SECRET], "list")],
)
async def test_an_answer_that_is_no_text_is_told_by_its_type(
    server: PrivateServer, answer: object, type_name: str
) -> None:
    error = await failure_of(login_of(server, lambda: answer))

    assert str(error) == (f"the callable that gives the password returned {type_name}, not a str")
    assert SECRET not in shown(error)


async def test_a_callable_that_never_answers_is_waited_for_no_longer_than_for_a_connection(
    server: PrivateServer,
) -> None:
    async def wait_for_ever() -> str:
        await asyncio.Event().wait()
        return SECRET

    error = await failure_of(login_of(server, wait_for_ever, connect_timeout=0.05))

    assert "no answer in time" in str(error)


@pytest.mark.parametrize("form", ["in the url", "a setting", "a callable"])
async def test_a_wrong_password_is_refused_with_the_fix_and_is_never_shown(
    server: PrivateServer, form: str
) -> None:
    forms = {
        "in the url": settings_of(server.url(user=f"{ROLE}:{SECRET}", with_password=False)),
        "a setting": login_of(server, SECRET),
        "a callable": login_of(server, lambda: SECRET),
    }

    error = await failure_of(forms[form])

    assert error.sqlstate == "28P01"
    assert f"can't connect to postgresql://{ROLE}@{server.host}:{server.port}/" in str(error)
    assert f'password authentication failed for user "{ROLE}"' in str(error)
    assert str(error).endswith("are user and password right?")
    assert SECRET not in shown(error)


async def test_a_callable_works_beside_several_hosts(
    server: PrivateServer, vault: Vault, source: PasswordSource
) -> None:
    hosts = f"{server.host}:{server.port},localhost:{server.port}"
    url = f"postgresql://{ROLE}@{hosts}/{server.database}"

    assert await ask(settings_of(url, password=source), WHO_AM_I) == ROLE
    assert vault.asked == 1
