"""Write the rows of a partition to a folder, and read them back, before anybody drops them."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentobs.bulk import copy_lines_from
from agentobs.errors import ArchiveError
from agentobs.maintenance.archive.extra import require_extra
from agentobs.maintenance.archive.folders import explained, open_folder
from agentobs.maintenance.archive.lines import BatchLimits, LineBatches, texts_of
from agentobs.maintenance.archive.manifest import FORMAT, Manifest, render
from agentobs.maintenance.archive.parquet import HashingFile, Layout, batches_to, free_names
from agentobs.maintenance.archive.read import DATA, MANIFEST, check, manifest_in
from agentobs.maintenance.archive.source import one_snapshot, read_facts, rows_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs.maintenance.archive.folders import Folder
    from agentobs.maintenance.archive.read import Progress
    from agentobs.maintenance.archive.source import ArchiveSource, SourceFacts

_DISTRIBUTION = "agentobs-orm"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Archive:
    """A finished archive; `is_new` is False where it was there before.

    `location` is what the other functions take; the password of a URL is in it, and not in `shown`.
    """

    location: str = field(repr=False)
    shown: str
    manifest: Manifest
    is_new: bool


async def write_archive(
    connection: AsyncConnection,
    source: ArchiveSource,
    target: str | Path,
    *,
    payload: Sequence[str] | None = None,
    limits: BatchLimits | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Archive a partition's rows, or with `payload` only the keys and these columns.

    The connection is one without a time limit for commands, nor a transaction: the rows are read
    in one of its own. The file has its name, and was read back and compared, when its manifest is
    written; a file without one is unfinished, and the next run replaces it. An archive with the
    same content that is there, and intact, is kept; one with another content is never replaced:
    the new one gets the next free name. Memory is bounded by `limits`, or the largest row.
    `progress` is called with rows done and their number: while they are written, then from the
    start while they are read back. It all happens in the caller's thread.

    Raises ArchiveError for a folder that can't be written to, and ArchiveDamagedError where what
    was read back is not what was written; nothing of the database is changed.
    """
    require_extra()
    folder = open_folder(target)
    async with _alone_in(folder):
        async with one_snapshot(connection):
            facts = await read_facts(connection, source, payload)
            job = _Job(source, facts, "rows" if payload is None else "payload")
            if kept := _find_same(folder, job):
                return kept
            stem = _free_stem(folder, job)
            with folder.create(stem + DATA) as file:
                written = HashingFile(file)
                rows = _Rows(job, written, limits or BatchLimits(), progress)
                await rows.copy(connection, folder.shown(stem + DATA))
        manifest = job.manifest(rows, written)
        check(folder, stem, manifest, progress)
        with folder.create(stem + MANIFEST) as file:
            file.write(render(manifest))
    return _archive(folder, stem, manifest, is_new=True)


@asynccontextmanager
async def _alone_in(folder: Folder) -> AsyncIterator[None]:
    """Wait until nobody else writes there: a name that is free must still be so at the end."""
    while not folder.lock():  # noqa: ASYNC110 (the other one is another process)
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        folder.unlock()


class _Job:
    """What is archived."""

    def __init__(self, source: ArchiveSource, facts: SourceFacts, kind: str) -> None:
        self.source = source
        self.facts = facts
        self.kind = kind
        original_id, self._verbatim = free_names(facts.columns)
        self._original_id = original_id if facts.has_original_ids else None
        self.layout = Layout(facts.columns, self._original_id, self._verbatim)

    @property
    def has_original_ids(self) -> bool:
        return self._original_id is not None

    def stems(self) -> Iterator[str]:
        """Yield the names of this month's archives, first to last; a table may have any name."""
        stem = quote(self.source.partition, safe="")
        stem += "" if self.kind == "rows" else f"-{self.kind}"
        yield stem
        yield from (f"{stem}-{number}" for number in count(2))

    def is_in(self, manifest: Manifest) -> bool:
        """Tell whether an archive holds the same."""
        return (
            manifest.kind == self.kind
            and manifest.table == self.source.table.name
            and manifest.columns == self.facts.columns
            and manifest.fingerprint == self.facts.fingerprint
        )

    def manifest(self, rows: _Rows, file: HashingFile) -> Manifest:
        source, facts, month = self.source, self.facts, self.source.month
        return Manifest(
            format=FORMAT,
            kind=self.kind,
            database=facts.database,
            schema_name=source.schema.name,
            table=source.table.name,
            partition=source.partition,
            month=month and month.day,
            lower_id=month and month.lower_id,
            upper_id=month and month.upper_id,
            columns=facts.columns,
            original_id_column=self._original_id,
            verbatim_column=self._verbatim,
            fingerprint=facts.fingerprint,
            original_ids=rows.original_ids,
            earliest=facts.earliest,
            latest=facts.latest,
            content_sha256=rows.content_sha256,
            sha256=file.sha256,
            size=file.size,
            schema_revision=facts.schema_revision,
            package_version=version(_DISTRIBUTION),
            postgresql_version=facts.postgresql_version,
            created_at=datetime.now(UTC),
        )


class _Rows:
    """The rows on their way from the server to the file."""

    def __init__(
        self, job: _Job, file: HashingFile, limits: BatchLimits, progress: Progress | None
    ) -> None:
        self._job = job
        self._file = file
        self._batches = LineBatches(limits)
        self._progress = progress
        self._content = hashlib.sha256()
        self._done = 0
        self.original_ids = 0

    @property
    def content_sha256(self) -> str:
        return self._content.hexdigest()

    async def copy(self, connection: AsyncConnection, shown: str) -> None:
        with batches_to(self._file, self._job.layout) as writer:

            async def take(data: bytes) -> None:
                self._content.update(data)
                # A full disk is none of the driver's errors, which pass this way as well.
                with explained(shown):
                    for lines in self._batches.add(data):
                        self._write(writer, lines)

            query = rows_query(self._job.source, self._job.facts)
            copied = await copy_lines_from(connection, query, take)
            for lines in self._batches.rest():
                self._write(writer, lines)
        if not copied == self._done == self._job.facts.fingerprint.rows:
            raise ArchiveError(shown, "the server did not send all rows: run it again")

    def _write(self, writer: Any, lines: list[bytes]) -> None:
        texts = texts_of(lines)
        writer.write_batch(self._job.layout.batch_of(texts))
        if self._job.has_original_ids:
            self.original_ids += len(lines) - texts[-1].null_count
        self._done += len(lines)
        if self._progress is not None:
            self._progress(self._done, self._job.facts.fingerprint.rows)


def _find_same(folder: Folder, job: _Job) -> Archive | None:
    """Return the archive that holds the same, where there is one and it is intact."""
    names = folder.names()
    for stem in job.stems():
        if stem + MANIFEST not in names:
            return None
        with suppress(ArchiveError):
            manifest = manifest_in(folder, stem)
            if job.is_in(manifest):
                check(folder, stem, manifest, None)
                return _archive(folder, stem, manifest, is_new=False)
    return None


def _free_stem(folder: Folder, job: _Job) -> str:
    names = folder.names()
    return next(stem for stem in job.stems() if stem + MANIFEST not in names)


def _archive(folder: Folder, stem: str, manifest: Manifest, *, is_new: bool) -> Archive:
    place = stem + DATA
    return Archive(folder.location(place), folder.shown(place), manifest, is_new)
