"""What the analytics answer with: frozen records, and tables of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from pydantic import BaseModel, ConfigDict, RootModel

from agentobs.analytics.frames import frame_of
from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Executable, Select
    from sqlalchemy import Result as Rows
    from sqlalchemy.ext.asyncio import AsyncSession

    Library = Literal["arrow", "pandas", "polars"]


class Result(BaseModel):
    """One answer; its fields name their units."""

    model_config = ConfigDict(frozen=True)

    def to(self, library: Library) -> Any:
        """Return a table of one row, as of `Table.to`."""
        return frame_of(type(self), [self], library)


Row = TypeVar("Row", bound=Result)


class Table(RootModel[tuple[Row, ...]], Generic[Row]):
    """A sequence of answers of one kind, in the order that the question names."""

    model_config = ConfigDict(frozen=True)

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override]  # of a model that is a sequence
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        return self.root[place]

    def to(self, library: Library) -> Any:
        """Return a pyarrow.Table, a pandas.DataFrame or a polars.DataFrame of the fields.

        Nested answers are structs, or lists of them. Raises ConfigurationError where the library
        is not installed.
        """
        return frame_of(self.row_kind(), self.root, library)

    @classmethod
    def row_kind(cls) -> type[Row]:
        """Return the class of the rows."""
        (kind,) = cls.__pydantic_generic_metadata__["args"]
        return cast("type[Row]", kind)


async def execute(
    session: AsyncSession, statement: Executable, values: Mapping[str, Any] | None = None
) -> Rows[*tuple[Any, ...]]:
    """Execute a statement of any question; raise InvalidValueError for what is no session."""
    # By what it can do: a host may have a session of its own make, or one scoped to its tasks.
    if not hasattr(session, "execute"):
        raise InvalidValueError(
            "session", "must be an open AsyncSession: async with sessions() as session"
        )
    return await session.execute(statement, values)


async def read_rows(
    session: AsyncSession, statement: Executable, values: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a statement as dicts, in a fifth of the time of `mappings()`."""
    found = await execute(session, statement, values)
    names = tuple(found.keys())
    return [dict(zip(names, row, strict=True)) for row in found]


async def fetch(session: AsyncSession, statement: Select[Any], kind: type[Row]) -> Table[Row]:
    """Return the rows of a statement, whose columns are named as the fields of `kind`."""
    found = await read_rows(session, statement)
    return table_of(kind, [kind.model_validate(row) for row in found])


def table_of(kind: type[Row], rows: Sequence[Row]) -> Table[Row]:
    """Return a table of answers that are made already."""
    return Table[kind].model_construct(root=tuple(rows))  # type: ignore[valid-type]  # made at run time
