"""What an install without the extra [archive] can do, and what it is told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.shell import environment

if TYPE_CHECKING:
    from pathlib import Path

# An import hook that hides PyArrow, as if it were not installed.
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE + code],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "archive.verify_archive('x.parquet')",
        "asyncio.run(archive.write_archive(None, None, 'x'))",
        "asyncio.run(archive.load_archive(None, 'x', schema=None, table=None, into='x'))",
    ],
)
def test_without_the_extra_archives_say_how_to_install_it(code: str) -> None:
    done = run(f"import asyncio; from agentobs.maintenance import archive; {code}")

    assert "MissingExtraError" in done.stderr
    assert "pip install 'agentobs-orm[archive]'" in done.stderr


def test_without_the_extra_manifests_can_be_read(tmp_path: Path) -> None:
    listing = f"archive.list_archives({str(tmp_path)!r})"
    done = run(f"from agentobs.maintenance import archive; print({listing})")

    assert done.stdout == "()\n", done.stderr


def test_pyarrow_is_not_imported_before_it_is_used() -> None:
    done = run("import agentobs.maintenance.archive, sys; print('pyarrow' in sys.modules)")

    assert done.stdout == "False\n", done.stderr
