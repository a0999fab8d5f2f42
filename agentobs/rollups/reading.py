"""Read a window: clean hours and days from the rollups, the rest row by row, in one statement.

One statement, because one snapshot has to tell which hours are clean, what they add up to, and
which rows lie beside them. An hour is clean that is folded, that no mark names, and whose
partitions are those that it was folded from. The statement of a shape is built once: that takes as
long as the server takes for its answer.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Boolean,
    Integer,
    Interval,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from agentobs.rollups.hours import DAY, HOUR, ONE_HOUR, as_table, day_of, key_at
from agentobs.rollups.tables import ATTACHED, INSTANT, IS_AS_NOTED, MARKS, PARTITIONS, STATE

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Label, Select

    from agentobs.rollups.families import Family
    from agentobs.rollups.question import Shape

_FIRST_HOUR, _MIDDLE, _END_HOUR, _FIRST_DAY, _END_DAY = (
    bindparam(name, type_=INSTANT)
    for name in ("first_hour", "middle", "end_hour", "first_day", "end_day")
)
_LOWER_ID, _UPPER_ID = (bindparam(name, type_=Uuid()) for name in ("lower_id", "upper_id"))
_BEGINS = bindparam("begins", type_=ARRAY(INSTANT))
_BEGIN_KEYS = bindparam("begin_keys", type_=ARRAY(Uuid()))
_HISTOGRAM = "_histogram"
_MICROSECOND = timedelta(microseconds=1)


@cache
def select_is_folded(family: Family) -> Select[Any]:
    """Select whether the rollups are to answer: where half of a span is folded, or some is kept.

    Rows are added up faster without bins; and who sees some of the rows only gets what these say.
    """
    rollup = family.rollup
    is_folded = exists().where(STATE.c.table_name == family.name, STATE.c.folded_to >= _MIDDLE)
    is_filtered = exists().where(ATTACHED.c.table_name == family.name, ATTACHED.c.is_filtered)
    is_kept = exists().where(
        rollup.c.is_total.is_(True),
        rollup.c.is_day.is_(False),
        rollup.c.is_kept.is_(True),
        rollup.c.begins_at >= _FIRST_HOUR,
        rollup.c.begins_at < _END_HOUR,
    )
    return select(and_(or_(is_folded, is_kept), ~is_filtered))


@cache
def merged(shape: Shape) -> CTE:
    """Return the answer for the values of a span: a row for each `step` and `agent` with rows.

    Steps count from 1 on; both are NULL where the shape has none. Beside them stand the family's
    sums, its percentiles where one hour stored them, and else the text of its histograms.
    """
    parts = _parts(shape)
    family = shape.family
    sums = [name for name in family.aggregates if not name.endswith(_HISTOGRAM)]
    is_one = func.max(parts.c.parts) == 1
    columns = [
        parts.c.step,
        parts.c.agent,
        *(func.sum(parts.c[name]).label(name) for name in sums),
        *(case((is_one, func.max(parts.c[name]))).label(name) for name in family.percentiles),
        *(_merged_histogram(parts, measure.histogram) for measure in family.measures),
    ]
    return select(*columns).group_by(parts.c.step, parts.c.agent).cte("merged")


def _merged_histogram(parts: CTE, name: str) -> ColumnElement[Any]:
    # Where an hour stands by itself, its histogram need not be read.
    is_wanted = or_(parts.c.parts > 1, parts.c.is_stored.is_(False))
    return cast(func.sum(parts.c[name]).filter(is_wanted), Text).label(name)


def _parts(shape: Shape) -> CTE:
    served = _served_hours(shape)
    whole_days = _whole_days(shape, served)
    hours = _single_hours(served, whole_days) if shape.has_days else served
    days = [_select_served(shape, whole_days, is_day=True)] if shape.has_days else []
    found = union_all(
        *days,
        _select_served(shape, hours, is_day=False),
        *_select_kept(shape),
        _select_rows(shape, _ranges(served)),
    ).subquery()
    count = func.count().over(partition_by=[found.c.step, found.c.agent]).label("parts")
    return select(*found.c, count).cte("parts")


def _served_hours(shape: Shape) -> CTE:
    """Return the whole hours of the window that are clean, and that no step parts."""
    family = shape.family
    folded = select(STATE.c.folded_to).where(STATE.c.table_name == family.name).scalar_subquery()
    last = func.least(_END_HOUR, folded) - ONE_HOUR
    hours = as_table(func.generate_series(_first_hour(family), last, ONE_HOUR))
    begins_at: ColumnElement[Any] = hours.c.begins_at
    stale = _stale_ranges(family)
    is_marked = exists().where(MARKS.c.table_name == family.name, MARKS.c.hour == begins_at)
    is_stale = exists().where(
        stale.c.lower_id < key_at(begins_at + ONE_HOUR), stale.c.upper_id > key_at(begins_at)
    )
    found = select(begins_at.label("begins_at")).where(~is_marked, ~is_stale)
    return found.where(_is_in_one_step(shape, begins_at, HOUR)).cte("served")


def _first_hour(family: Family) -> ColumnElement[Any]:
    """Return the first hour to look at: a window may begin years before the first row."""
    rollup = family.rollup
    earliest = select(func.min(rollup.c.begins_at)).where(
        rollup.c.is_total.is_(True), rollup.c.is_day.is_(False)
    )
    return func.greatest(_FIRST_HOUR, earliest.scalar_subquery())


def _is_in_one_step(shape: Shape, begins_at: ColumnElement[Any], width: timedelta) -> Any:
    if not shape.has_steps:
        return true()
    last = begins_at + literal(width - _MICROSECOND, Interval)
    return func.width_bucket(begins_at, _BEGINS) == func.width_bucket(last, _BEGINS)


def _stale_ranges(family: Family) -> CTE:
    """Return the keys of partitions that came, went or changed since they were folded.

    They are read once: each hour asks for them.
    """
    ranges = (
        select(table.c.lower_id, table.c.upper_id).where(
            table.c.table_name == family.name, ~exists().where(IS_AS_NOTED).correlate(table)
        )
        for table in (ATTACHED, PARTITIONS)
    )
    return union_all(*ranges).cte("stale").prefix_with("MATERIALIZED")


def _whole_days(shape: Shape, served: CTE) -> CTE:
    """Return the days of which all hours are served, and that no step parts."""
    day = day_of(served.c.begins_at)
    is_whole = and_(func.count() == DAY // HOUR, _is_in_one_step(shape, day, DAY))
    return select(day.label("begins_at")).group_by(day).having(is_whole).cte("whole_days")


def _single_hours(served: CTE, whole_days: CTE) -> CTE:
    """Return the served hours that are in no whole day."""
    is_within = exists().where(whole_days.c.begins_at == day_of(served.c.begins_at))
    return select(served.c.begins_at).where(~is_within).cte("single_hours")


def _stored(shape: Shape) -> list[ColumnElement[Any]]:
    family, rollup = shape.family, shape.family.rollup
    return [
        *_places(shape, rollup.c.agent, func.width_bucket(rollup.c.begins_at, _BEGINS)),
        *(rollup.c[name] for name in family.aggregates),
        *(rollup.c[name] for name in family.percentiles),
        _has_percentiles(family).label("is_stored"),
    ]


def _has_percentiles(family: Family) -> ColumnElement[bool]:
    """Tell whether a row of the rollup stores what its histograms would give."""
    rollup = family.rollup
    known = (
        or_(rollup.c[f"{measure.name}_rows"] == 0, rollup.c[name].is_not(None))
        for measure in family.measures
        for name in measure.percentiles
    )
    return and_(~rollup.c.is_day, rollup.c.is_total, *known)


def _select_stored(
    shape: Shape, condition: ColumnElement[bool], *, is_day: bool, is_kept: bool
) -> Select[Any]:
    rollup = shape.family.rollup
    return select(*_stored(shape)).where(
        rollup.c.is_total.is_(not shape.of_agents),
        rollup.c.is_day.is_(is_day),
        rollup.c.is_kept.is_(is_kept),
        condition,
    )


def _select_served(shape: Shape, times: CTE, *, is_day: bool) -> Select[Any]:
    # The server knows how many it looks up in an array; of a join it would guess, and read all.
    found = func.array(select(times.c.begins_at).scalar_subquery(), type_=ARRAY(INSTANT))
    is_among = shape.family.rollup.c.begins_at == func.any(found)
    return _select_stored(shape, is_among, is_day=is_day, is_kept=False)


def _select_kept(shape: Shape) -> list[Select[Any]]:
    """Return what is known of rows that have expired: of whole hours, for it has no parts."""
    begins_at = shape.family.rollup.c.begins_at
    is_within = and_(begins_at >= _FIRST_HOUR, begins_at < _END_HOUR)
    if not shape.has_days:
        in_one_step = _is_in_one_step(shape, begins_at, HOUR)
        return [_select_stored(shape, and_(is_within, in_one_step), is_day=False, is_kept=True)]
    # Where the window has no whole day, its first one begins behind the end of the last.
    day = day_of(begins_at)
    in_days = and_(day >= _FIRST_DAY, day < _END_DAY, _is_in_one_step(shape, day, DAY))
    in_hours = and_(is_within, ~in_days, _is_in_one_step(shape, begins_at, HOUR))
    return [
        _select_stored(shape, and_(is_within, in_days), is_day=True, is_kept=True),
        _select_stored(shape, in_hours, is_day=False, is_kept=True),
    ]


def _select_rows(shape: Shape, ranges: CTE) -> Select[Any]:
    """Return what the rows beside the served hours add up to."""
    family, key = shape.family, shape.family.rows.c.id
    step, agent = _places(shape, family.rows.c[family.agent], _step_of(key))
    columns = [
        step,
        agent,
        *(value.label(name) for name, value in family.aggregates.items()),
        *(cast(null(), family.rollup.c[name].type).label(name) for name in family.percentiles),
        literal(False, Boolean).label("is_stored"),
    ]
    is_within = and_(key >= ranges.c.lower_id, key < ranges.c.upper_id)
    return (
        select(*columns)
        .select_from(ranges)
        .join(family.rows, is_within)
        .group_by(step.element, agent.element)
    )


def _ranges(served: CTE) -> CTE:
    """Return the keys of the window that lie before, between and behind the served hours."""
    begins_at = served.c.begins_at
    previous_end = func.lag(begins_at + ONE_HOUR).over(order_by=begins_at)
    gaps = union_all(
        select(
            func.coalesce(key_at(previous_end), _LOWER_ID).label("lower_id"),
            key_at(begins_at).label("upper_id"),
        ),
        select(func.coalesce(key_at(func.max(begins_at) + ONE_HOUR), _LOWER_ID), _UPPER_ID),
    ).subquery()
    is_any = gaps.c.lower_id < gaps.c.upper_id
    return select(gaps.c.lower_id, gaps.c.upper_id).where(is_any).cte("ranges")


def _places(
    shape: Shape, agent: ColumnElement[Any], step: ColumnElement[Any]
) -> tuple[Label[Any], Label[Any]]:
    return (
        (step if shape.has_steps else cast(null(), Integer)).label("step"),
        (agent if shape.of_agents else cast(null(), Text)).label("agent"),
    )


def _step_of(key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the number, from 1 on, of the step of the span that a key lies in."""
    return func.width_bucket(key, _BEGIN_KEYS)
