"""The statements of a recorder's writer: each takes a whole batch, and the caller commits.

Those that change rows are two within the caller's transaction: autocommit is not for them.

They name the bounds of their ids beside the ids themselves: by these alone, PostgreSQL looks into
each partition of the table.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from sqlalchemy import (
    ARRAY,
    Boolean,
    Integer,
    Numeric,
    Table,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    func,
    insert,
    inspect,
    not_,
    or_,
    select,
    table,
    true,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from agentobs.bulk import copy_records, schema_of
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric
from agentobs.models.types import AwareTimestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy import BindParameter, ColumnElement, Select, TableValuedAlias, Update
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.types import TypeEngine

    from agentobs.models.base import Base

# As benchmarks/insert_crossing.py has it: up to ten rows both take as long, within 0.2 ms, and from
# twenty on COPY is ahead. INSERT needs no look at the table, but each number of rows is a statement
# to prepare.
_CROSSING = 5
_DIALECT = dialect()  # type: ignore[no-untyped-call]
_EVENTS = cast("Table", AgentTransformationEvent.__table__)
_METRICS = cast("Table", RouterPerformanceMetric.__table__)


class Outcome(NamedTuple):
    """What came of a routing decision; None leaves what is stored.

    One that `is_late` may be older than what is stored, and gives way to it then.
    """

    id: UUID
    success: bool | None
    quality_score: Decimal | None
    validated_at: datetime
    is_late: bool


class Feedback(NamedTuple):
    """What a person said of a routing decision; `details` are JSON text.

    It does not tell when: where it `is_late`, it gives way to any that is stored.
    """

    id: UUID
    type: str
    details: str | None
    is_late: bool = False


class Completion(NamedTuple):
    """How a run ended; of the first two durations None leaves what is stored."""

    id: UUID
    event_type: str
    success: bool | None
    error_type: str | None
    error_message: str | None
    quality_score: Decimal | None
    transformation_duration_ms: int | None
    initialization_duration_ms: int | None
    total_execution_duration_ms: int | None
    completed_at: datetime


class _Updating(NamedTuple):
    """The statement that locks rows and finds which there are, and the one that changes them."""

    lock: Select[tuple[UUID]]
    change: Update


_Change = TypeVar("_Change", Outcome, Feedback, Completion)

_TYPES: Mapping[str, TypeEngine[Any]] = {
    "id": Uuid(),
    "success": Boolean(),
    # Rounded as its column rounds it, before it is subtracted from a confidence.
    "quality_score": Numeric(5, 4),
    "validated_at": AwareTimestamp(),
    "is_late": Boolean(),
    # A text that is too long for its column is refused; a cast to varchar(n) would cut it.
    "type": Text(),
    "details": Text(),
    "event_type": Text(),
    "error_type": Text(),
    "error_message": Text(),
    "transformation_duration_ms": Integer(),
    "initialization_duration_ms": Integer(),
    "total_execution_duration_ms": Integer(),
    "completed_at": AwareTimestamp(),
}


async def insert_records(
    connection: AsyncConnection,
    model: type[Base],
    columns: Sequence[str],
    records: Sequence[tuple[Any, ...]],
) -> None:
    """Store records, which the driver can take as they are, in one statement.

    Columns that are left out get the database's defaults. Raises the errors of a statement.
    """
    if len(records) > _CROSSING:
        await copy_records(connection, model, columns, records)
    elif records:
        await insert_values(connection, model, columns, records)


async def insert_values(
    connection: AsyncConnection,
    model: type[Base],
    columns: Sequence[str],
    records: Sequence[tuple[Any, ...]],
) -> None:
    """Store a few records by INSERT: the driver takes 32,767 values in all.

    It is `insert_records` that knows whether they are few enough to be faster by it than by COPY.
    """
    statement = _insert(_table(model), tuple(columns), len(records), schema_of(connection))
    await connection.exec_driver_sql(statement, tuple(chain.from_iterable(records)))


async def existing(
    connection: AsyncConnection, model: type[Base], ids: Collection[UUID]
) -> set[UUID]:
    """Return those of the ids that are stored."""
    return await _matched(connection, _stored(_table(model)), ids)


async def completed(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Return those of the ids whose events are stored and have ended."""
    ended = AgentTransformationEvent.completed_at.is_not(None)
    return await _matched(connection, _stored(_EVENTS).where(ended), ids)


async def update_outcomes(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> set[UUID]:
    """Note what came of routing decisions; return the ids of those that are stored.

    A row counts as matched also where a late outcome gives way to the one that it has; one that
    another transaction has locked is not matched, for it shall hold up nothing.
    """
    return await _update(connection, _OUTCOMES, outcomes)


async def update_feedback(connection: AsyncConnection, feedbacks: Sequence[Feedback]) -> set[UUID]:
    """Note what persons said of routing decisions; return the ids, as for outcomes."""
    return await _update(connection, _FEEDBACK, feedbacks)


async def complete_runs(
    connection: AsyncConnection, completions: Sequence[Completion]
) -> set[UUID]:
    """Note how runs ended; return the ids of those that are stored."""
    return await _update(connection, _COMPLETIONS, completions)


def _table(model: type[Base]) -> Table:
    return cast("Table", inspect(model).local_table)


@lru_cache(maxsize=128)
def _insert(stored: Table, columns: tuple[str, ...], rows: int, schema: str | None) -> str:
    """Return the text of an INSERT: SQLAlchemy keeps none that has several rows of VALUES."""
    # A table without the model's defaults, which are not among the records.
    plain = table(
        stored.name,
        *(column(name, stored.columns[name].type) for name in columns),
        schema=schema,
    )
    return str(insert(plain).values([dict.fromkeys(columns)] * rows).compile(dialect=_DIALECT))


def _among(stored: Table) -> ColumnElement[bool]:
    key = stored.columns.id
    return and_(key == any_(_array("id")), *_bounds(stored))


def _bounds(stored: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    key = stored.columns.id
    return key >= bindparam("least", type_=Uuid()), key <= bindparam("greatest", type_=Uuid())


def _array(field: str) -> BindParameter[Any]:
    # By its own name it would be the value of a column.
    return bindparam(f"given_{field}", type_=ARRAY(_TYPES[field]))


def _stored(stored: Table) -> Select[tuple[UUID]]:
    return select(stored.columns.id).where(_among(stored))


async def _matched(
    connection: AsyncConnection,
    statement: Select[tuple[UUID]],
    ids: Collection[UUID],
) -> set[UUID]:
    if not ids:
        return set()
    values = {"given_id": list(ids)} | _bounds_of(ids)
    return set(await connection.scalars(statement, values))


def _bounds_of(ids: Collection[UUID]) -> dict[str, Any]:
    return {"least": min(ids), "greatest": max(ids)}


async def _update(
    connection: AsyncConnection, updating: _Updating, changes: Sequence[_Change]
) -> set[UUID]:
    """Lock the rows, then change them; return which there are.

    In two statements: one that did both, by a common table expression, has crashed PostgreSQL 18.6
    where other processes changed the same rows at the same time.
    """
    matched: set[UUID] = set()
    for turn in _turns(changes):
        locked = await _matched(connection, updating.lock, [change.id for change in turn])
        ours = [change for change in turn if change.id in locked]
        if ours:
            fields = zip(ours[0]._fields, zip(*ours, strict=True), strict=True)
            arrays = {f"given_{name}": list(values) for name, values in fields}
            await connection.execute(updating.change, arrays | _bounds_of(locked))
        matched |= locked
    return matched


def _turns(changes: Sequence[_Change]) -> list[list[_Change]]:
    """Cut a batch where a row is changed again: of two changes a statement makes any one."""
    turns: list[dict[UUID, _Change]] = []
    for change in changes:
        turn = next((turn for turn in turns if change.id not in turn), None)
        if turn is None:
            turns.append(turn := {})
        turn[change.id] = change
    return [list(turn.values()) for turn in turns]


def _updating(
    stored: Table,
    change: type[_Change],
    values: Callable[[Any], Mapping[str, Any]],
    only: Callable[[Any], ColumnElement[bool]] | None = None,
    *,
    skip_locked: bool = True,
) -> _Updating:
    """Make the statements of a kind of change; the rows of the first are those that it found."""
    given = _given(change._fields)
    key = stored.columns.id
    # In the order of ids: two processes that change the same rows never wait for each other.
    lock = _stored(stored).order_by(key).with_for_update(key_share=True, skip_locked=skip_locked)
    changed = update(stored).where(key == given.c.id, *_bounds(stored)).values(values(given.c))
    return _Updating(lock, changed if only is None else changed.where(only(given.c)))


def _given(fields: Sequence[str]) -> TableValuedAlias:
    arrays = func.unnest(*map(_array, fields))
    columns = (column(field, _TYPES[field]) for field in fields)
    return arrays.table_valued(*columns).render_derived(name="given")


def _outcome(given: Any) -> Mapping[str, Any]:
    stored = _METRICS.columns
    quality = func.coalesce(given.quality_score, stored.actual_quality_score)
    return {
        "selection_validated": true(),
        "actual_success": func.coalesce(given.success, stored.actual_success),
        "actual_quality_score": quality,
        "prediction_error": stored.confidence_score - quality,
        "validated_at": given.validated_at,
    }


def _is_news(given: Any) -> ColumnElement[bool]:
    known = _METRICS.columns.validated_at
    return or_(not_(given.is_late), known.is_(None), known <= given.validated_at)


def _is_only(given: Any) -> ColumnElement[bool]:
    return or_(not_(given.is_late), _METRICS.columns.feedback_provided.is_not(true()))


def _feedback(given: Any) -> Mapping[str, Any]:
    return {
        "feedback_provided": true(),
        "feedback_type": given.type,
        "feedback_details": sql_cast(given.details, JSONB),
    }


def _completion(given: Any) -> Mapping[str, Any]:
    stored = _EVENTS.columns
    known = ("transformation_duration_ms", "initialization_duration_ms")
    values = {name: given[name] for name in Completion._fields if name != "id"}
    return values | {name: func.coalesce(given[name], stored[name]) for name in known}


_OUTCOMES = _updating(_METRICS, Outcome, _outcome, _is_news)
_FEEDBACK = _updating(_METRICS, Feedback, _feedback, _is_only)
# A row of one's own, which nobody locks for long; one that is not matched is inserted.
_COMPLETIONS = _updating(_EVENTS, Completion, _completion, skip_locked=False)
