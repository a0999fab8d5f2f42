"""What an archive says of itself: the JSON file beside it."""

from __future__ import annotations

import hashlib
import json
from datetime import date, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from agentobs.errors import ArchiveDamagedError, ArchiveFormatError

FORMAT = 1
"""The format that is written; a change that older versions can't read gets the next number."""

_CHECKSUM = "manifest_sha256"


class Fingerprint(NamedTuple):
    """What tells whether two tables hold the same rows, in whatever order.

    `hashes` is the sum of a 64-bit hash of each row, as text: JSON readers may know no integers
    of that size.
    """

    rows: int
    hashes: str


class ArchivedColumn(BaseModel):
    """A column as the catalog has it; a generated one is not restored, but computed anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    generated: bool = False


class Manifest(BaseModel):
    """What an archive holds, where it came from, and how to tell that it is intact.

    An archive of `kind` "rows" has every column of the table, one of "payload" some of them.
    `earliest` and `latest` are instants as PostgreSQL writes them, which may be beyond what
    Python's datetime holds. `content_sha256` is of the rows as COPY writes them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    kind: Literal["rows", "payload"]
    database: str
    schema_name: str
    table: str
    partition: str
    month: date | None
    lower_id: UUID | None
    upper_id: UUID | None
    columns: tuple[ArchivedColumn, ...]
    original_id_column: str | None
    verbatim_column: str
    fingerprint: Fingerprint
    original_ids: int
    earliest: str | None
    latest: str | None
    content_sha256: str
    sha256: str
    size: int
    schema_revision: str | None
    package_version: str
    postgresql_version: str
    created_at: datetime

    @property
    def rows(self) -> int:
        """How many rows the archive holds."""
        return self.fingerprint.rows

    @property
    def column_names(self) -> tuple[str, ...]:
        """The table's columns that the archive holds, in its order."""
        return tuple(column.name for column in self.columns)


def render(manifest: Manifest) -> bytes:
    """Return the text of the file, with a checksum over all that it says."""
    content = manifest.model_dump(mode="json")
    return json.dumps(content | {_CHECKSUM: _checksum(content)}, indent=2).encode() + b"\n"


def parse(data: bytes, path: str) -> Manifest:
    """Read the text of a manifest; `path` is for the error.

    Raises ArchiveDamagedError where it is not what `render` made, and ArchiveFormatError where a
    newer version of the package made it.
    """
    content = _content(data, path)
    checksum = content.pop(_CHECKSUM, None)
    # Before the number of the format is believed.
    if checksum != _checksum(content):
        raise ArchiveDamagedError(path, "it was changed after it was written (its checksum)")
    if not isinstance(content.get("format"), int) or content["format"] > FORMAT:
        raise ArchiveFormatError(path, content.get("format"), FORMAT)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ArchiveDamagedError(path, f"{error.error_count()} fields are not valid") from None


def _content(data: bytes, path: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError:
        raise ArchiveDamagedError(path, "it is not JSON") from None
    if not isinstance(content, dict):
        raise ArchiveDamagedError(path, "it is not a JSON object")
    return content


def _checksum(content: dict[str, Any]) -> str:
    # Of the content, not of the text: who indents the file anew has not changed it.
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
