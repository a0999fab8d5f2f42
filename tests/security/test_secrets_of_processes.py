"""What `ps` and its like tell to other users of the machine holds no secret."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
from support.embedded import wait_until
from support.models import CANARY
from typer.main import get_command

from agentobs.cli import app
from agentobs.registry.patterns import PatternBounds, try_patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

# It takes longer than there is time for.
SLOW = "(a+)+$"
HOST_SECRETS = ("AGENTOBS_DATABASE_URL", "AGENTOBS_PASSWORD", "PGPASSWORD", "SOME_API_KEY")
SECRET_WORDS = ("dsn", "passw", "secret", "token", "uri", "url")


def workers() -> list[psutil.Process]:
    """Return the processes that try patterns for this one."""
    return [
        child
        for child in psutil.Process().children()
        if any("pattern_worker" in part for part in child.cmdline())
    ]


def test_a_process_that_tries_patterns_knows_nothing_of_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in HOST_SECRETS:
        monkeypatch.setenv(name, CANARY)
    bounds = PatternBounds(pattern_seconds=1, seconds=1)
    request = "a" * 60 + CANARY

    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(try_patterns, [SLOW, CANARY], request, bounds, ignore_case=True)
        wait_until(lambda: bool(workers()))
        (worker,) = workers()
        shown = f"{worker.cmdline()} {worker.environ()}"

    assert CANARY not in shown
    assert told.result()[0] == "takes longer than 1 s on this text"


def options(found: Any) -> Iterator[str]:
    yield from (name for each in found.params for name in each.opts)
    for command in getattr(found, "commands", {}).values():
        yield from options(command)


def test_no_command_takes_an_address_or_a_password_as_an_argument() -> None:
    taken = set(options(get_command(app)))

    assert "--since" in taken
    assert not [name for name in taken if any(word in name.lower() for word in SECRET_WORDS)]
