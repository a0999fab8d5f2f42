"""The archive of a release: fetched once, compared with its digest, unpacked where it is used."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from matrix.releases import Release

CACHE = Path(__file__).resolve().parents[2] / "build" / "servers"
_PATIENCE_SECONDS = 60
_NATIVE = Path("package", "native")


def fetch(release: Release, cache: Path = CACHE) -> Path:
    """Return the archive, from the registry where the cache does not have it yet."""
    archive = cache / release.file_name
    if not archive.exists():
        content = _download(release.url)
        _require_digest(release, content)
        cache.mkdir(parents=True, exist_ok=True)
        # Whoever finds it finds it whole.
        partial = archive.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.rename(archive)
    return archive


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack into an empty folder, for every user to run; return the folder of the programs."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    _link(folder / "package")
    # The caller's umask may have closed them to the account of the server.
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        each.chmod(0o755)
    return folder / _NATIVE / "bin"


def _download(url: str) -> bytes:
    try:
        # The registry is the developer's, and what it sends is compared.
        with urlopen(url, timeout=_PATIENCE_SECONDS) as response:  # noqa: S310
            content: bytes = response.read()
    except (URLError, OSError) as error:
        raise SystemExit(
            f"{url} can't be fetched: {error}. Set npm_config_registry to a registry of npm that "
            "this machine reaches"
        ) from error
    return content


def _require_digest(release: Release, content: bytes) -> None:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if digest != release.digest:
        raise SystemExit(
            f"{release.url} is not the archive that was tried: its SHA-512 is {digest}, "
            f"not {release.digest}. Nothing of it is kept"
        )


def _link(package: Path) -> None:
    """Make the links of the shared libraries: an npm archive holds none, but a list of them."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_bytes()):
        target = package / link["target"]
        if not target.exists():
            target.symlink_to(Path(link["source"]).name)
