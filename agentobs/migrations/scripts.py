"""Where the revisions are, and Alembic's configuration for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from alembic.config import Config
from alembic.script import ScriptDirectory

from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The package is a guest: the plain name alembic_version may be its host's.
VERSION_TABLE = "agentobs_alembic_version"


class RevisionInfo(NamedTuple):
    """A revision of the schema: its name, the one before it, and what it does."""

    revision: str
    down_revision: str | None
    description: str


def script_home() -> Path:
    """Return the folder that holds alembic.ini: the installed package, else the repository.

    The package comes first by its own file, because an editable install leaves a stale copy of
    the scripts in site-packages.
    """
    package = Path(__file__).resolve().parent.parent
    for home in (package, package.parent):
        if (home / "alembic.ini").is_file() and (home / "alembic" / "env.py").is_file():
            return home
    raise ConfigurationError(
        f"the migration scripts are neither in {package} nor beside it: install agentobs-orm again"
    )


def version_location() -> Path:
    """Return the folder of the revisions, for the `version_locations` of a host."""
    return script_home() / "alembic" / "versions"


def alembic_config(*, output: TextIO | None = None) -> Config:
    """Make Alembic's configuration for the package's revisions; offline SQL goes to `output`."""
    return Config(script_home() / "alembic.ini", output_buffer=output or sys.stdout)


def statements_of(file: str) -> list[str]:
    """Return the statements of a file beside the revisions, where two blank lines part them."""
    text = (version_location() / file).read_text(encoding="utf-8")
    return text.split("\n\n\n")


def revisions() -> Iterator[RevisionInfo]:
    """Iterate over the revisions, newest first; touches no database."""
    for script in ScriptDirectory.from_config(alembic_config()).walk_revisions():
        down = script.down_revision
        yield RevisionInfo(
            script.revision, down if isinstance(down, str) else None, script.doc.rstrip(".")
        )
