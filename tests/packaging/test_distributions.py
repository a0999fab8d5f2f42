"""The wheel and the sdist, built and used as a stranger would."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.shell import HEAD, REPOSITORY, environment

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

SCRIPTS = [
    "alembic.ini",
    "alembic/env.py",
    "alembic/script.py.mako",
    *(
        path.relative_to(REPOSITORY).as_posix()
        for kind in ("py", "sql")
        for path in sorted(REPOSITORY.glob(f"alembic/versions/*.{kind}"))
    ),
]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a venv that has the wheel, and borrows the dependencies of ours."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home)
    (wheel,) = distributions.glob("*.whl")
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True
    )
    (packages,) = home.glob("lib/python*/site-packages")
    # A path in a .pth file brings packages in, but not the .pth of our editable install.
    (packages / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return home / "bin"


def _agentobs(
    installed: Path, *arguments: str, settings: DatabaseSettings | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed / "agentobs", *arguments],
        cwd=installed,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_scripts_beside_the_package(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {f"agentobs/{script}" for script in SCRIPTS} <= set(names)
    assert "agentobs/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"agentobs"}


def test_the_sdist_holds_what_the_wheel_is_built_from(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {*SCRIPTS, "LICENSE", "README.md", "agentobs/py.typed", "pyproject.toml"} <= names


def test_the_installed_wheel_migrates_from_elsewhere(
    installed: Path, agentobs_empty_database: DatabaseSettings
) -> None:
    settings = agentobs_empty_database
    where = subprocess.run(
        [installed / "python", "-c", "import agentobs; print(agentobs.__file__)"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(installed.parent))

    for command, answer in (
        (("db", "upgrade"), f"is now at {HEAD}"),
        (("db", "current"), HEAD),
        (("db", "check"), "matches the models"),
        (("db", "downgrade", "base"), "is now at base"),
        (("db", "current"), "base"),
    ):
        run = _agentobs(installed, *command, settings=settings)
        assert run.returncode == 0, run.stderr
        assert answer in run.stdout + run.stderr


def test_the_installed_wheel_prints_history_and_sql_without_a_database(installed: Path) -> None:
    history = _agentobs(installed, "db", "history")
    up = _agentobs(installed, "db", "sql")
    down = _agentobs(installed, "db", "sql", "head:base", "--downgrade")

    assert history.stdout.splitlines()[0].split()[2] == HEAD
    assert "CREATE TABLE agent_definitions" in up.stdout
    assert "DROP TABLE agent_definitions" in down.stdout
    assert [run.returncode for run in (history, up, down)] == [0, 0, 0]
