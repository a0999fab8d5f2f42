"""Folders for the tests of the embedded server: a pytest plugin, named by each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.embedded import FAST, processes_of, wait_until

from agentobs.embedded import running_server, stop_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every uid can enter, as the one of `tmp_path` is not."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="agentobs-test-")))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


_numbers = count()


@pytest.fixture
def empty_folder(open_folder: Path) -> Iterator[Path]:
    """The name of a data folder that is not there yet; nothing may run for it in the end."""
    folder = open_folder / f"data {next(_numbers)} é"
    yield folder
    stop_server(folder)
    wait_until(lambda: not processes_of(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(open_folder: Path) -> Path:
    """A data folder with a database in it, and no server."""
    folder = open_folder / "template é"
    with running_server(folder, options=FAST):
        stop_server(folder)
    wait_until(lambda: not processes_of(folder))
    return folder


@pytest.fixture
def data_folder(template: Path) -> Iterator[Path]:
    """The one data folder of the tests that leave nothing in it but what a server does."""
    yield template
    stop_server(template)
    wait_until(lambda: not processes_of(template))


@pytest.fixture
def own_folder(empty_folder: Path, template: Path) -> Path:
    """A data folder that a test may turn upside down: a copy is quicker than initdb."""
    subprocess.run(["cp", "-a", template, empty_folder], check=True)
    return empty_folder
