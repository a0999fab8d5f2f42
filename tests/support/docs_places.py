"""A place for each page: its folder, its database or server, and its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.docs_pages import RunsOn
from support.host_project import install_package
from support.shell import REPOSITORY

from agentobs import embedded
from agentobs.embedded.binaries import find_binaries
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL
    from support.docs_pages import Page

_COPIED = (
    "agentobs",
    "alembic",
    "alembic.ini",
    "docs",
    "examples",
    "Makefile",
    "pyproject.toml",
    "README.md",
)
# Nothing of the shell's settings, of git's, or of the test run around.
_KEPT = ("HOME", "LANG", "LC_ALL", "TMPDIR", "USER")


@dataclass(frozen=True)
class Places:
    """The server and the migrated database from which each page gets its own."""

    server: URL
    template: str

    def run(self, page: Page, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a page in its place, in a process of its own."""
        code = folder
        if page.runs_on is RunsOn.PROJECT:
            code = folder.with_name(f"{folder.name}-installed")
            install_package(code)
        elif page.runs_on is not RunsOn.FOLDER:
            copy_repository(folder)
        with self._settings(page) as settings:
            return subprocess.run(
                [sys.executable, "-W", "error", "-m", "support.docs_runner", str(page.path)],
                check=False,
                cwd=folder,
                encoding="utf-8",
                env=page_environment(code, settings),
                stderr=subprocess.STDOUT,
                stdout=subprocess.PIPE,
            )

    @contextmanager
    def _settings(self, page: Page) -> Iterator[dict[str, str]]:
        if page.runs_on is RunsOn.EMBEDDED:
            with _data_directory() as folder:
                yield {"AGENTOBS_DATA_DIR": str(folder)}
        elif page.runs_on is RunsOn.FOLDER:
            yield {"AGENTOBS_TEST_DATABASE_URL": self._url(str(self.server.database))}
        else:
            template = self.template if page.runs_on is RunsOn.HEAD else None
            with temporary_database(self.server, template=template) as name:
                yield {"AGENTOBS_DATABASE_URL": self._url(name)}

    def _url(self, database: str) -> str:
        url = settings_for(self.server, database).database_url
        assert url is not None
        return url.get_secret_value()


def copy_repository(folder: Path) -> None:
    """Copy what the commands of a page read, and may write."""
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copy2(source, folder / name)


def page_environment(code: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a page: the tools of this run, and the code of a folder."""
    tools = (Path(sys.executable).parent, find_binaries(), *os.get_exec_path())
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PATH": os.pathsep.join(map(str, tools)),
        "PYTHONPATH": os.pathsep.join(map(str, (code, REPOSITORY / "tests"))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "TERM": "dumb",
        **settings,
    }


@contextmanager
def _data_directory() -> Iterator[Path]:
    # Where the tests run as root the server is another user, whom pytest's own folders keep out.
    folder = Path(tempfile.mkdtemp(prefix="agentobs-docs-"))
    folder.chmod(0o755)
    try:
        yield folder / "data"
    finally:
        embedded.stop_server(folder / "data")
        shutil.rmtree(folder)
