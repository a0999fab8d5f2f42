"""Dump and restore databases, by the programs that an operator has."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from support.shell import psql, url_of

from agentobs.embedded.binaries import find_binaries

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

# The programs are PostgreSQL 18's, and set this on every server; it is new in PostgreSQL 17.
_NEWER_SETTING = "SET transaction_timeout = 0;\n"


def dump(settings: DatabaseSettings, *options: str) -> bytes:
    return _run("pg_dump", "--dbname", url_of(settings), *options)


def restore(settings: DatabaseSettings, archive: bytes, *options: str, before: str = "") -> None:
    """Restore into a database, after a statement of the same session."""
    script = _run("pg_restore", "--file=-", *options, input=archive)
    run_dump(settings, before.encode() + script)


def run_dump(settings: DatabaseSettings, script: bytes) -> None:
    done = psql(settings, script.decode().replace(_NEWER_SETTING, ""))
    assert done.returncode == 0, done.stderr


def _run(program: str, *options: str, input: bytes = b"") -> bytes:  # noqa: A002
    path = find_binaries() / program
    done = subprocess.run([path, *options], input=input, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
