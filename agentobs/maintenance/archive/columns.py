"""How a column of PostgreSQL stands in the file: typed where no value loses by it.

A typed column holds what comes back from it as the very text that PostgreSQL wrote; any other
value (an infinity, NaN, a year BC, an array of arrays) is null there, and its text stands in the
column of verbatim values. A type that is not known here is kept as text as a whole. So are UUIDs:
Parquet has a type for them, but readers show it as 16 raw bytes or as an object each, and don't
join it to text; and after compression it saves little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from agentobs.maintenance.archive.arrays import QUOTED, array_text, parse_array
from agentobs.maintenance.archive.extra import pa, pc

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_INSTANT = re.compile(r"timestamp(?:\(\d\))? (with|without) time zone")
_TEXTS = re.compile(r"(?:text|uuid|character varying(?:\(\d+\))?)\[\]")
_MOST_DIGITS = 38
_WHOLE = r"^-?\d+$"
_DECIMAL = r"^-?\d+(\.\d+)?$"
# PyArrow's name of the type, and the texts that it reads.
_CASTS = {
    "smallint": ("int16", _WHOLE),
    "integer": ("int32", _WHOLE),
    "bigint": ("int64", _WHOLE),
    "date": ("date32", r"^\d{4}-\d\d-\d\d$"),
}
_MOMENT = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?"
_ZONE = "+00"


class ColumnType(NamedTuple):
    """The type in the file, and the ways there and back; texts that don't fit become null."""

    arrow: Any
    typed: Callable[[Any], Any]
    text: Callable[[Any], Any]


def column_type(type_: str) -> ColumnType:
    """Choose how a column is held whose type the catalog names so."""
    if type_ in _CASTS:
        name, pattern = _CASTS[type_]
        return _cast(getattr(pa, name)(), pattern)
    if type_ == "boolean":
        return ColumnType(pa.bool_(), _booleans, _texts_of_booleans)
    if _TEXTS.fullmatch(type_):
        return ColumnType(pa.list_(pa.string()), _lists, _texts_of_lists)
    if found := _INSTANT.fullmatch(type_):
        return _instants(has_zone=found[1] == "with")
    if (found := _NUMERIC.fullmatch(type_)) and _fits(int(found[1]), int(found[2])):
        return _cast(pa.decimal128(int(found[1]), int(found[2])), _DECIMAL)
    return ColumnType(pa.string(), _as_it_is, _as_it_is)


def typed_and_misfits(kind: ColumnType, texts: Any) -> tuple[Any, Any]:
    """Return the typed column, and which rows' values stand in it as null though they are none."""
    typed = kind.typed(texts)
    same = pc.fill_null(pc.equal(texts, kind.text(typed)), fill_value=False)
    misfits = pc.and_(pc.is_valid(texts), pc.invert(same))
    return pc.if_else(misfits, pa.scalar(None, kind.arrow), typed), misfits


def _fits(digits: int, scale: int) -> bool:
    return scale <= digits <= _MOST_DIGITS


def _as_it_is(column: Any) -> Any:
    return column


def _cast(arrow: Any, pattern: str) -> ColumnType:
    return ColumnType(
        arrow,
        lambda texts: pc.cast(_matching(texts, pattern), arrow),
        lambda typed: pc.cast(typed, pa.string()),
    )


def _matching(texts: Any, pattern: str) -> Any:
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string()))


def _booleans(texts: Any) -> Any:
    return pc.equal(texts, "t")


def _texts_of_booleans(typed: Any) -> Any:
    return pc.if_else(typed, "t", "f")


def _instants(*, has_zone: bool) -> ColumnType:
    arrow = pa.timestamp("us", tz="UTC") if has_zone else pa.timestamp("us")
    pattern, zone = _MOMENT + (r"\+00$" if has_zone else "$"), _ZONE if has_zone else ""
    return ColumnType(
        arrow,
        lambda texts: pc.cast(_matching(texts, pattern), arrow),
        lambda typed: _texts_of_instants(typed, zone),
    )


def _texts_of_instants(typed: Any, zone: str) -> Any:
    local = pc.cast(typed, pa.timestamp("us"))
    # Always with six digits of the second, of which the server leaves out the last zeros.
    texts = pc.replace_substring_regex(pc.cast(local, pa.string()), r"\.?0*$", "")
    return pc.binary_join_element_wise(texts, zone, "")


def _lists(texts: Any) -> Any:
    lists = [None if text is None else parse_array(text) for text in texts.to_pylist()]
    return pa.array(lists, pa.list_(pa.string()))


def _texts_of_lists(typed: Any) -> Any:
    elements = pc.list_flatten(typed)
    if not elements.null_count and not pc.any(pc.match_substring_regex(elements, QUOTED)).as_py():
        return pc.binary_join_element_wise("{", pc.binary_join(typed, ","), "}", "")
    texts = [None if list_ is None else array_text(list_) for list_ in typed.to_pylist()]
    return pa.array(texts, pa.string())
