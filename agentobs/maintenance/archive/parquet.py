"""The Parquet file: batches of texts into typed columns, and back to the very texts."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agentobs.errors import AgentobsError, ArchiveDamagedError
from agentobs.maintenance.archive.columns import column_type, typed_and_misfits
from agentobs.maintenance.archive.extra import pa, pq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from agentobs.maintenance.archive.manifest import ArchivedColumn, Manifest

_ORIGINAL_ID, _VERBATIM = "agentobs:original_id", "agentobs:verbatim"
_TEXT = "text"


class Layout:
    """The columns of a file: the table's, the id before, and the texts that fit no typed column."""

    def __init__(
        self, columns: Sequence[ArchivedColumn], original_id_column: str | None, verbatim: str
    ) -> None:
        self.names = [column.name for column in columns]
        types = [column.type for column in columns]
        if original_id_column is not None:
            self.names.append(original_id_column)
            types.append(_TEXT)
        self.kinds = [column_type(type_) for type_ in types]
        self.verbatim = verbatim

    @property
    def schema(self) -> Any:
        """The schema of the file."""
        fields = zip(self.names, self.kinds, strict=True)
        return pa.schema(
            [*((name, kind.arrow) for name, kind in fields), (self.verbatim, pa.string())]
        )

    @property
    def measured(self) -> list[str]:
        """The columns of which each row group tells the bounds.

        Not texts: theirs may be kilobytes, and all of them are in memory until the file ends.
        """
        fields = zip(self.names, self.kinds, strict=True)
        plain = (name for name, kind in fields if pa.types.is_primitive(kind.arrow))
        return ["id", *plain]

    def batch_of(self, texts: Sequence[Any]) -> Any:
        """Return the batch that holds columns of texts."""
        columns: list[Any] = []
        notes: dict[int, dict[str, str]] = {}
        for name, kind, column in zip(self.names, self.kinds, texts, strict=True):
            typed, misfits = typed_and_misfits(kind, column)
            columns.append(typed)
            for row in _rows_of(misfits):
                notes.setdefault(row, {})[name] = column[row].as_py()
        columns.append(_verbatim(notes, len(texts[0])))
        return pa.record_batch(columns, schema=self.schema)

    def texts_of(self, batch: Any) -> list[Any]:
        """Return the columns of texts that a batch holds."""
        notes = {
            row: json.loads(note)
            for row, note in enumerate(batch.column(self.verbatim).to_pylist())
            if note is not None
        }
        return [
            _with_verbatim(kind.text(batch.column(name)), name, notes)
            for name, kind in zip(self.names, self.kinds, strict=True)
        ]


def layout_of(manifest: Manifest) -> Layout:
    """Return how the file of a manifest is laid out."""
    return Layout(manifest.columns, manifest.original_id_column, manifest.verbatim_column)


def free_names(columns: Sequence[ArchivedColumn]) -> tuple[str, str]:
    """Return names for the columns of original ids and verbatim texts that the host has not."""
    taken = {column.name for column in columns}
    return _free_name(_ORIGINAL_ID, taken), _free_name(_VERBATIM, taken)


class HashingFile(io.RawIOBase):
    """Count and hash what is written through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """The hash of all that was written."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Tell what PyArrow asks of a file."""
        return True

    def write(self, data: Any) -> int:
        """Write the bytes."""
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size


@contextmanager
def batches_to(file: HashingFile, layout: Layout) -> Iterator[Any]:
    """Write a file: each batch that is given to `write_batch` becomes a row group."""
    writer = pq.ParquetWriter(
        file, layout.schema, compression="zstd", write_statistics=layout.measured
    )
    try:
        yield writer
    except BaseException:
        # Else it ends the file when it is collected, and fails once more.
        with suppress(Exception):
            writer.close()
        raise
    writer.close()


def batches_from(
    file: BinaryIO, layout: Layout, shown: str, columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """Read a file, a row group at a time; raise ArchiveDamagedError where it is none."""
    with _damage_explained(shown), pq.ParquetFile(file) as parquet:
        if parquet.schema_arrow.names != layout.schema.names:
            raise ArchiveDamagedError(shown, "its columns are not those of its manifest")
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=columns).combine_chunks()
            yield from table.to_batches()


@contextmanager
def _damage_explained(shown: str) -> Iterator[None]:
    try:
        yield
    except AgentobsError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        # Arrow raises OSError for bytes that it can't decode, without a number of the system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Its words may quote what it read.
        raise ArchiveDamagedError(shown, f"it can't be decoded ({type(error).__name__})") from None


def _verbatim(notes: dict[int, dict[str, str]], rows: int) -> Any:
    if not notes:
        return pa.nulls(rows, pa.string())
    texts = {row: json.dumps(note, ensure_ascii=False) for row, note in notes.items()}
    return pa.array(map(texts.get, range(rows)), pa.string(), size=rows)


def _with_verbatim(texts: Any, name: str, notes: dict[int, dict[str, str]]) -> Any:
    wanted = {row: note[name] for row, note in notes.items() if name in note}
    if not wanted:
        return texts
    values = [wanted.get(row, text) for row, text in enumerate(texts.to_pylist())]
    return pa.array(values, pa.string())


def _rows_of(mask: Any) -> Iterator[int]:
    if mask.true_count:
        yield from (row for row, found in enumerate(mask.to_pylist()) if found)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
