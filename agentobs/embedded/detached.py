"""Processes that outlive their starter."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The shell leaves at once, so the process belongs to init: it is never a zombie of ours, and no
# wait() of the host application meets it. Arguments are passed, never pasted into the script.
_LEAVE_IN_BACKGROUND = 'exec "$@" &'


def spawn_detached(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    inherited: int,
    output: int,
    process_options: Mapping[str, Any],
) -> None:
    """Run a command in its own session; of our descriptors it gets `inherited` and `output`."""
    subprocess.run(
        ["/bin/sh", "-c", _LEAVE_IN_BACKGROUND, "sh", *command],
        check=True,
        cwd="/",
        env=environment,
        pass_fds=(inherited,),
        start_new_session=True,
        stderr=output,
        stdin=subprocess.DEVNULL,
        stdout=output,
        umask=0o077,
        **process_options,
    )


def server_environment() -> dict[str, str]:
    """Return the environment of PostgreSQL's programs: no PG* variable and no secret of ours."""
    return {"LC_ALL": "C", "PATH": os.defpath}
