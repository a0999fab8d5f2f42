"""The metadata, the declarative base and the column aliases that the models share."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from inspect import get_annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import MetaData, Numeric, String, Table, Text, Uuid, event, func, inspect, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from agentobs.errors import CreateAllRefusedError
from agentobs.keys import EPOCH
from agentobs.models.time_ordered import instant_from_key
from agentobs.models.types import AwareTimestamp
from agentobs.models.validation import checks_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper

# PostgreSQL's own suffixes for keys; what a constraint or index is for is its name in the model.
metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(constraint_name)s",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "idx_%(table_name)s_%(constraint_name)s",
    }
)

# For what grows in order: a few bytes for 32 pages, brought up to date as these fill.
BRIN: dict[str, Any] = {
    "postgresql_using": "brin",
    "postgresql_with": {"pages_per_range": 32, "autosummarize": "on"},
}

# Each model marks its key as the insert sentinel, which an alias can't do: a key with a default of
# the server too is not trusted to match returned rows to objects, and each would be one INSERT.
Key = Annotated[UUID, mapped_column(Uuid, default=uuid4, server_default=text("gen_random_uuid()"))]
# Of the event tables: made together with the instant that it holds (see time_ordered).
TimeOrderedKey = Annotated[
    UUID, mapped_column(Uuid, server_default=text("agentobs_uuid7_at(now())"))
]
Name = Annotated[str, mapped_column(String(255))]
Label = Annotated[str, mapped_column(String(100))]
ShortLabel = Annotated[str, mapped_column(String(50))]
Digest = Annotated[str, mapped_column(String(64))]
LongText = Annotated[str, mapped_column(Text)]
TextArray = Annotated[list[str], mapped_column(ARRAY(Text))]
Json = Annotated[Any, mapped_column(JSONB(none_as_null=True))]
Score = Annotated[Decimal, mapped_column(Numeric(5, 4), info={"bounds": (0, 1)})]
Difference = Annotated[Decimal, mapped_column(Numeric(5, 4), info={"bounds": (-1, 1)})]
Instant = Annotated[datetime, mapped_column(AwareTimestamp)]
KeyedInstant = Annotated[
    datetime,
    mapped_column(
        AwareTimestamp,
        default=instant_from_key,
        server_default=func.now(),
        info={"earliest": EPOCH},
    ),
]


class Base(DeclarativeBase):
    """The base of the models: no lazy loading, defaults of the server fetched with the write.

    It is not for the models of a host: their tables are not in these migrations.
    """

    metadata = metadata
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 (declarative wants it unannotated)

    # What repr shows: never a context, a request or a document.
    shown_columns: ClassVar[tuple[str, ...]] = ("id",)

    # Hidden from type checkers, which would take the method for leave to assign any name.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            check = checks_of(type(self)).get(name)
            if check is not None:
                value = check(value)
            # Python would take a misspelled column without a word, and nothing would be written.
            elif not _may_be_assigned(type(self), name):
                near = get_close_matches(name, inspect(type(self)).all_orm_descriptors.keys(), n=1)
                hint = f": did you mean {near[0]}?" if near else ""
                raise AttributeError(f"{type(self).__name__} has no column {name}{hint}")
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        loaded = inspect(self).dict
        shown = (f"{name}={loaded[name]!r}" for name in self.shown_columns if name in loaded)
        return f"{type(self).__name__}({', '.join(shown)})"


# Attributes of the class that are no columns; "metadata" is easily meant for parsed_metadata.
_NO_COLUMNS = frozenset({"metadata", "registry", "shown_columns"})


def _may_be_assigned(model: type, name: str) -> bool:
    if name.startswith("_"):
        return True
    if name in _NO_COLUMNS:
        return False
    # A host's subclass may annotate an attribute that it assigns later.
    return hasattr(model, name) or any(name in get_annotations(base) for base in model.__mro__)


def _refuse_create(target: MetaData | Table, connection: Connection, **options: Any) -> None:
    del target, connection, options
    raise CreateAllRefusedError(
        "create_all() makes no functions, triggers and partitions, so it can't make this schema: "
        "run the migrations instead (`alembic upgrade head`, or `agentobs db upgrade`)"
    )


event.listen(metadata, "before_create", _refuse_create)


@event.listens_for(Base, "instrument_class", propagate=True)
def _guard_table(mapper: Mapper[Any], model: type) -> None:
    del model
    if isinstance(mapper.local_table, Table):
        event.listen(mapper.local_table, "before_create", _refuse_create)
