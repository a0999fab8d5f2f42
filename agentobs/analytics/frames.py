"""Tables of other libraries, where those are installed."""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib import import_module
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from agentobs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel

_PACKAGES = {"arrow": "pyarrow", "pandas": "pandas", "polars": "polars"}


def frame_of(kind: type[BaseModel], rows: Sequence[BaseModel], library: str) -> Any:
    """Return the rows, of one kind, as a table of the library; raise ConfigurationError."""
    if library not in _PACKAGES:
        raise ConfigurationError(f"{library!r} is no table: choose one of {', '.join(_PACKAGES)}")
    arrow = _arrow_table(kind, rows)
    if library == "arrow":
        return arrow
    if library == "polars":
        return _module("polars").from_arrow(arrow)
    _module("pandas")
    return arrow.to_pandas()


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"this table needs {name}: pip install {name}") from error


def _arrow_table(kind: type[BaseModel], rows: Sequence[BaseModel]) -> Any:
    pa = _module("pyarrow")
    told = [_plain(row.model_dump()) for row in rows]
    # Of each its type, for a column without values has none of its own.
    schema = pa.schema([(name, _type(pa, f.annotation)) for name, f in kind.model_fields.items()])
    return pa.Table.from_pylist(told, schema=schema)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _type(pa: Any, annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not NoneType)
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    if (item := _item(annotation)) is not None:
        return pa.list_(_type(pa, item))
    if hasattr(annotation, "model_fields"):
        fields = annotation.model_fields.items()
        return pa.struct([(name, _type(pa, field.annotation)) for name, field in fields])
    make: Callable[[Any], Any] = next(
        make for base, make in _TYPES.items() if issubclass(annotation, base)
    )
    return make(pa)


def _item(annotation: Any) -> Any:
    """Return the kind of what a sequence holds; None of what is no sequence."""
    if get_origin(annotation) in (tuple, list):
        return get_args(annotation)[0]
    root = getattr(annotation, "model_fields", {}).get("root")
    return None if root is None else _item(root.annotation)


# A boolean is an integer, too, and comes first.
_TYPES: dict[type, Callable[[Any], Any]] = {
    bool: lambda pa: pa.bool_(),
    int: lambda pa: pa.int64(),
    float: lambda pa: pa.float64(),
    str: lambda pa: pa.string(),
    UUID: lambda pa: pa.string(),
    datetime: lambda pa: pa.timestamp("us", "UTC"),
    timedelta: lambda pa: pa.duration("us"),
}
