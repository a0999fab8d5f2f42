"""Archives that are there: what they say of themselves, and whether it is true."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentobs.errors import ArchiveDamagedError, ArchiveError
from agentobs.maintenance.archive.extra import require_extra
from agentobs.maintenance.archive.folders import TEMPORARY, open_folder, split_location
from agentobs.maintenance.archive.lines import lines_of
from agentobs.maintenance.archive.manifest import parse
from agentobs.maintenance.archive.parquet import batches_from, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agentobs.maintenance.archive.folders import Folder
    from agentobs.maintenance.archive.manifest import Manifest

    Progress = Callable[[int, int], None]

DATA, MANIFEST = ".parquet", ".manifest.json"
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class ListedArchive:
    """A file in a folder of archives; `problem` is None for one that is finished and readable.

    `location` is what the other functions take; the password of a URL is in it, and not in `shown`.
    """

    location: str = field(repr=False)
    shown: str
    manifest: Manifest | None
    problem: str | None


def list_archives(target: str | Path) -> tuple[ListedArchive, ...]:
    """List the archives in a folder by name, the unfinished ones too; none is read.

    Raises ArchiveError where there is no such folder: its name may be misspelled.
    """
    folder = open_folder(target)
    folder.require()
    names = folder.names()
    stems = {
        name.removesuffix(end)
        for end in (DATA, MANIFEST, DATA + TEMPORARY)
        for name in names
        if name.endswith(end)
    }
    return tuple(_listed(folder, stem, names) for stem in sorted(stems))


def read_manifest(location: str | Path) -> Manifest:
    """Read what an archive says of itself.

    Raises ArchiveError where there is no manifest, ArchiveDamagedError where it was changed, and
    ArchiveFormatError for one of a newer version.
    """
    return manifest_in(*find(location))


def verify_archive(location: str | Path, *, progress: Progress | None = None) -> Manifest:
    """Read an archive whole, and compare it with its manifest.

    Compared are the bytes of the file, and the rows as PostgreSQL wrote them. Raises
    ArchiveDamagedError where they differ, and what `read_manifest` does.
    """
    require_extra()
    folder, stem = find(location)
    manifest = manifest_in(folder, stem)
    check(folder, stem, manifest, progress)
    return manifest


def find(location: str | Path) -> tuple[Folder, str]:
    """Return the folder of an archive, and what the names of its two files begin with."""
    folder, name = split_location(location)
    return folder, name.removesuffix(MANIFEST).removesuffix(DATA)


def manifest_in(folder: Folder, stem: str) -> Manifest:
    """Read the manifest beside an archive."""
    name = stem + MANIFEST
    if name not in folder.names():
        raise ArchiveError(
            folder.shown(stem + DATA),
            f"there is no {name} beside it: the archive is unfinished, or elsewhere",
        )
    with folder.open(name) as file:
        return parse(file.read(), folder.shown(name))


def check(folder: Folder, stem: str, manifest: Manifest, progress: Progress | None) -> None:
    """Raise ArchiveDamagedError where an archive is not what the manifest says."""
    check_bytes(folder, stem, manifest)
    for _ in checked_batches(folder, stem, manifest, progress):
        pass


def check_bytes(folder: Folder, stem: str, manifest: Manifest) -> None:
    """Compare the bytes of the file, before anything is made of them."""
    found, size = hashlib.sha256(), 0
    with folder.open(stem + DATA) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
            size += len(piece)
    if (size, found.hexdigest()) != (manifest.size, manifest.sha256):
        raise ArchiveDamagedError(
            folder.shown(stem + DATA),
            f"{size} bytes, where {manifest.size} were written"
            if size != manifest.size
            else "its bytes are others than were written",
        )


def checked_batches(
    folder: Folder, stem: str, manifest: Manifest, progress: Progress | None
) -> Iterator[list[Any]]:
    """Yield the columns of texts, a batch at a time; after the last one compare the whole."""
    content, rows, shown = hashlib.sha256(), 0, folder.shown(stem + DATA)
    layout = layout_of(manifest)
    with folder.open(stem + DATA) as file:
        for batch in batches_from(file, layout, shown):
            texts = layout.texts_of(batch)
            content.update(lines_of(texts))
            rows += batch.num_rows
            yield texts
            if progress is not None:
                progress(rows, manifest.rows)
    if rows != manifest.rows:
        raise ArchiveDamagedError(shown, f"{rows} rows, where {manifest.rows} were archived")
    if content.hexdigest() != manifest.content_sha256:
        raise ArchiveDamagedError(shown, "its rows are others than were archived")


def _listed(folder: Folder, stem: str, names: set[str]) -> ListedArchive:
    manifest, problem = None, None
    try:
        manifest = manifest_in(folder, stem)
    except ArchiveError as error:
        problem = error.reason
    if manifest is not None and stem + DATA not in names:
        problem = "the file is missing, and only its manifest is there"
    place = stem + DATA
    return ListedArchive(folder.location(place), folder.shown(place), manifest, problem)
