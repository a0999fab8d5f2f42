"""Run a command on a PostgreSQL of each version: `cd tests && python -m matrix 14 15 -- pytest`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from matrix.archives import fetch, unpack
from matrix.command import run, unwind_when_ended
from matrix.releases import RELEASES, VERSIONS, release_of
from support.private_server import PROGRAMS_SETTING, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]

# Nothing of a run is wanted after a crash.
_FAST_OPTIONS = {"full_page_writes": "off", "synchronous_commit": "off"}


class Job(NamedTuple):
    """A command for the versions; it runs in the folder of the repository."""

    versions: Sequence[int]
    command: Sequence[str]


def main() -> None:
    """Run it on all versions, and fail where it failed on one of them."""
    job = _read(sys.argv[1:])
    unwind_when_ended()
    # All of them first: that the registry does not answer is no news for the second hour.
    archives = {each: fetch(release_of(each)) for each in job.versions if each in RELEASES}
    codes = {each: _run_on(each, archives.get(each), job.command) for each in job.versions}
    for each, code in codes.items():
        print(f"PostgreSQL {each}: {'passed' if code == 0 else f'failed (exit code {code})'}")
    sys.exit(any(codes.values()))


def _read(arguments: Sequence[str]) -> Job:
    known = [str(each) for each in VERSIONS]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    versions, command = arguments[:end], arguments[end + 1 :]
    if not versions or not command or not set(versions) <= set(known):
        sys.exit(
            f"usage: python -m matrix VERSION... -- COMMAND, of the versions {' '.join(known)}"
        )
    return Job([int(each) for each in versions], command)


def _run_on(version: int, archive: Path | None, command: Sequence[str]) -> int:
    print(f"PostgreSQL {version}: {' '.join(command)}", flush=True)
    with _programs(archive) as programs:
        environment = {} if programs is None else {PROGRAMS_SETTING: str(programs)}
        with private_server(programs=programs, options=_FAST_OPTIONS) as server:
            environment["AGENTOBS_TEST_DATABASE_URL"] = server.url()
            return run(command, REPOSITORY, os.environ | environment)


@contextmanager
def _programs(archive: Path | None) -> Iterator[Path | None]:
    """Unpack where the account of the server comes to: it may not see the repository."""
    if archive is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="agentobs-programs-"))
    try:
        yield unpack(archive, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
