"""Archives: the rows of a partition in a Parquet file, and back again, bit for bit.

`write_archive` makes one of a table's rows as they are in one snapshot, `load_archive` copies it
into an empty table; `list_archives`, `read_manifest` and `verify_archive` need no database. What
they compare is the text of each value as PostgreSQL writes it, under fixed settings: as COPY
sends it to the file, as the file gives it back, and as the loaded table has it.

It needs the extra [archive]; without it the functions raise MissingExtraError, except those that
read manifests only.
"""

from __future__ import annotations

from agentobs.maintenance.archive.lines import BatchLimits
from agentobs.maintenance.archive.load import load_archive
from agentobs.maintenance.archive.manifest import ArchivedColumn, Fingerprint, Manifest
from agentobs.maintenance.archive.read import (
    ListedArchive,
    list_archives,
    read_manifest,
    verify_archive,
)
from agentobs.maintenance.archive.source import ArchiveSource, fingerprint, is_unchanged
from agentobs.maintenance.archive.write import Archive, write_archive

__all__ = [
    "Archive",
    "ArchiveSource",
    "ArchivedColumn",
    "BatchLimits",
    "Fingerprint",
    "ListedArchive",
    "Manifest",
    "fingerprint",
    "is_unchanged",
    "list_archives",
    "load_archive",
    "read_manifest",
    "verify_archive",
    "write_archive",
]
