"""A new data folder: made beside its place and moved there, so that it is whole or not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agentobs.embedded import binaries
from agentobs.embedded.detached import server_environment
from agentobs.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentobs.embedded.layout import Layout

SUPERUSER = "postgres"
DATABASE = "agentobs"
_SCRATCH_PREFIX = ".initdb-"
# A second on a laptop; a slow disk under load gets a hundred times that.
_PATIENCE_SECONDS = 120

_INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--encoding=UTF8",
    # The builtin provider needs no locale of the operating system, and sorts alike everywhere.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    # Also for who starts it by hand, without the rules of `access`.
    "--auth-local=peer",
    "--auth-host=reject",
    "--no-instructions",
    # In postgresql.conf, so that ALTER SYSTEM can change them.
    "--set=max_connections=100",
    "--set=shared_buffers=128MB",
    "--set=timezone=UTC",
    "--set=log_timezone=UTC",
    # Nobody reads them here, and the log is cut at a start only.
    "--set=log_checkpoints=off",
)


def ensure_cluster(layout: Layout, programs: Path, *, server_lock: int) -> None:
    """Make the data folder where it is missing; every process on the way inherits `server_lock`."""
    _remove_leftovers(layout)
    if layout.cluster.exists():
        return
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=layout.data_directory))
    layout.account.own(scratch)
    folder = ("-D", str(scratch))
    # fsync once at the end instead of after each step.
    _run(layout, [programs / "initdb", *folder, "--no-sync", *_INITDB_OPTIONS], server_lock)
    _run(
        layout,
        [
            programs / "postgres",
            "--single",
            *folder,
            "-c",
            "exit_on_error=on",
            "-c",
            "fsync=off",
            "postgres",
        ],
        server_lock,
        statements=f"CREATE DATABASE {DATABASE}\n",
    )
    _run(layout, [programs / "initdb", *folder, "--sync-only"], server_lock)
    scratch.rename(layout.cluster)
    _sync_folder(layout.data_directory)


def _run(
    layout: Layout, command: Sequence[str | Path], server_lock: int, statements: str = ""
) -> None:
    result = subprocess.run(
        command,
        check=False,
        cwd="/",
        env=server_environment(),
        input=statements,
        pass_fds=(server_lock,),
        start_new_session=True,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PATIENCE_SECONDS,
        umask=0o077,
        **layout.account.process_options,
    )
    if result.returncode != 0:
        raise EmbeddedServerError(
            f"no new data folder in {layout.data_directory}:\n{result.stdout.strip()}\n"
            "Mend what it says, or set AGENTOBS_DATA_DIR to another folder"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(layout: Layout) -> None:
    # server.lock is ours: whoever made them is dead.
    for prefix in (_SCRATCH_PREFIX, binaries.SCRATCH_PREFIX):
        for leftover in layout.data_directory.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
